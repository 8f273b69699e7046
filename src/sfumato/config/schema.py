"""Every setting of a run, with its default. Options of a method are its constructor's signature, not repeated here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sfumato import addons
from sfumato.data.label_noise import LabelNoise, NoiseKind
from sfumato.data.long_tail import Gamma, LongTail
from sfumato.data.pairs import ProtocolName
from sfumato.data.protocols import ClassProtocolName
from sfumato.data.request import LabelRequest
from sfumato.data.task import Task
from sfumato.methods import options
from sfumato.train_config import TrainConfig

DEFAULT_METHOD = "uncertainty_weighted"
DEFAULT_RECIPES: dict[Task, str] = {"classification": "quick", "segmentation": "quick_seg"}
DEFAULT_RECIPE = DEFAULT_RECIPES["classification"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


def check_share(value: int | float) -> int | float:
    if value < 0 or (not isinstance(value, int) and value >= 1):
        raise ValueError("expected a number of images, or a share of at least 0 and below 1")
    return value


Share = Annotated[int | float, AfterValidator(check_share)]


def no_word(value: Any) -> Any:
    if value == "reversed":
        raise ValueError("`reversed` is for gamma_unlabeled; here a negative number reverses the order of the classes")
    return value


Size = Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class DataSection(Section):
    """What to train on. `labels`, `labels_per_class` and `fraction` exclude one another; none of them takes all labels.

    val and test: a number of labelled images to hold out, or a share of them; ignored where the data says which.

    Of images with masks only: `masks`, their folder; `lists`, a folder of labeled.txt, unlabeled.txt and val.txt;
    `format`, instead of the layout that is recognized; `classes`, a file of class names and colours; `void`, the value
    in masks that stands for no class; `mapping`, {stored value: class}, 255 for void, of masks that number otherwise;
    `resize`, the long side or [width, height] that images are read at.

    `protocol`: the published data set that it must be. Without a source it is looked for in data/NAME, and below
    SFUMATO_DATA; `download` fetches it there if it is not.

    Of images with a class each only: `gamma_labeled` and `gamma_unlabeled`, long tails (images of the largest class
    over those of the smallest; negative: the classes the other way round; "reversed": against the labelled one), of
    `head_labeled` and `head_unlabeled` images in the largest class, by `class_order`, names from head to tail; `noise`,
    a share of wrong training labels, of which `noise_kind`, and `noise_val` among validation labels too.
    """

    task: Task | Literal["auto"] = "auto"
    source: str = ""
    labels_csv: str | None = None
    masks: str | None = None
    lists: str | None = None
    format: Literal["voc", "cityscapes", "ade20k", "folders", "coco"] | None = None
    protocol: Literal[ProtocolName, ClassProtocolName] | None = None
    classes: str | None = None
    mapping: dict[int, int] | None = None
    void: Annotated[int, Field(ge=0)] = 255
    resize: Size | None = None
    image_size: Annotated[int, Field(ge=1)] | None = None  # None: as the images are, or 224
    channels: Literal[1, 3] | None = None  # None: 1 if every image is grey
    labels: Annotated[int, Field(ge=1)] | None = None
    labels_per_class: Annotated[int, Field(ge=1)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    val: Share = 0.2
    test: Share = 0.2
    split_seed: int = 0
    include_labeled: bool = True
    skip_broken: bool = False
    gamma_labeled: Annotated[float | None, BeforeValidator(no_word)] = None
    gamma_unlabeled: Gamma | None = None
    head_labeled: int | None = None
    head_unlabeled: int | None = None
    class_order: tuple[str, ...] | None = None
    noise: float = 0.0
    noise_kind: NoiseKind = "symmetric"
    noise_val: bool = False
    download: bool = False

    @property
    def long_tail(self) -> LongTail:
        """Raises UsageError where the numbers cannot be."""
        return LongTail(
            self.gamma_labeled, self.gamma_unlabeled, self.head_labeled, self.head_unlabeled, self.class_order or ()
        )

    @property
    def label_noise(self) -> LabelNoise:
        """Raises UsageError where the share cannot be."""
        return LabelNoise(self.noise, self.noise_kind, self.noise_val, self.protocol)

    @property
    def request(self) -> LabelRequest:
        """Raises UsageError for numbers of labels that exclude one another."""
        return LabelRequest(self.labels, self.labels_per_class, self.fraction, self.long_tail)


class MethodSection(BaseModel):
    """A method by name; whatever else is given here are its options."""

    model_config = ConfigDict(extra="allow", frozen=True, coerce_numbers_to_str=True)
    name: str = DEFAULT_METHOD

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class AddonSection(BaseModel):
    """An add-on by name, none by default; whatever else is given here are its options."""

    model_config = ConfigDict(extra="allow", frozen=True, coerce_numbers_to_str=True)
    name: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ModelSection(Section):
    name: str = "auto"  # auto: small up to 64 px, tf_efficientnet_lite0 beyond; for masks small_seg or fpn
    encoder: str | None = None  # of a segmentation net that takes one
    pretrained: bool = False
    frozen: bool = False
    weights: str | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    options: dict[str, Any] = Field(default_factory=dict)


class ViewsSection(Section):
    preset: str = "auto"  # auto: digits for grey images up to 32 px, natural32 up to 64 px, photos beyond
    crop: Size | None = None  # of images with masks: side or [height, width]; None: as the images are, at most 321


class EvaluateSection(Section):
    bins: Annotated[int, Field(ge=1)] = 15  # of the calibration errors
    batch: Annotated[int, Field(ge=1)] = 256  # images at a time; changes no result
    inference: Literal["auto", "full", "sliding"] = "auto"  # of images with masks: whole, or windows of the crop's size


def parse_seeds(text: str) -> tuple[int, ...]:
    """0:3 is 0, 1, 2; 0,4,7 is what it says; 5 is that seed alone. Raises ValueError."""
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        seeds = tuple(range(int(match[1]), int(match[2])))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        seeds = tuple(int(part) for part in text.split(","))
    else:
        raise ValueError("expected seeds as 0:3 (which is 0, 1, 2), 0,4,7 or 5")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError("expected at least one seed, and none twice")
    return seeds


def _seeds(value: object) -> object:
    return parse_seeds(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else value


class Config(Section):
    """A run. `seeds` trains once for each of them, in folders of their own; `seed` is then ignored.

    budget: the network and the length of training that a protocol is taken with, such as paper, long_tail, usb, quick.
    """

    name: str | None = None
    recipe: str | None = DEFAULT_RECIPE
    budget: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    seeds: Annotated[tuple[int, ...] | None, BeforeValidator(_seeds)] = None
    baseline: bool = True
    data: DataSection = DataSection()
    method: MethodSection = MethodSection()
    addon: AddonSection = AddonSection()
    model: ModelSection = ModelSection()
    views: ViewsSection = ViewsSection()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateSection = EvaluateSection()

    def with_seed(self, seed: int) -> Config:
        """The same for one seed."""
        return self.model_copy(update={"seed": seed, "seeds": None})

    def with_method(self, name: str) -> Config:
        """The same for a method with its default options and no add-on."""
        return self.model_copy(update={"method": MethodSection(name=name), "addon": AddonSection()})

    @property
    def label(self) -> str:
        """What the run trains, for people: fixmatch, or fixmatch+seval with an add-on."""
        return self.method.name if self.addon.name is None else f"{self.method.name}+{self.addon.name}"


def nested(config: Config) -> dict[str, Any]:
    """All settings as YAML holds them, the method's defaults written out."""
    values = config.model_dump(mode="json")
    defaults = {key: parameter.default for key, parameter in options(config.method.name).items()}
    values["method"] = {"name": config.method.name, **_listed(defaults | config.method.options)}
    if config.addon.name is not None:
        defaults = {key: parameter.default for key, parameter in addons.options(config.addon.name).items()}
        values["addon"] = {"name": config.addon.name, **_listed(defaults | config.addon.options)}
    return values


def flat(config: Config) -> dict[str, Any]:
    """The same with dotted keys."""
    values: dict[str, Any] = {}
    for key, value in nested(config).items():
        if isinstance(value, dict):
            values |= {f"{key}.{inner}": item for inner, item in value.items()}
        else:
            values[key] = value
    return values


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, as they come back from a file."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


_MAY_CHANGE = (
    "name", "recipe", "budget", "seeds", "baseline", "data.source", "data.labels_csv", "data.masks", "data.lists",
    "data.classes", "data.skip_broken", "data.download", "train.log_every", "train.save_every", "train.keep",
    "train.tensorboard", "train.on_collapse", "evaluate.bins", "evaluate.batch",
)  # fmt: skip


def identity(config: Config) -> dict[str, Any]:
    """The settings that decide what training does: a run can be continued only if these are as they were.

    Where the data lies is not among them: the fingerprint of the splits tells whether it is the same.
    """
    return {key: value for key, value in flat(config).items() if key not in _MAY_CHANGE}
