"""What a bench file may say, and every mistake in it told by the file, the key and what was meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sfumato.bench.file import Choice, data_choice, labels_choice, read_bench
from sfumato.bench.grid import Cell, cells
from sfumato.errors import UsageError

SMALL = {"methods": ["fixmatch"], "data": ["digits"], "labels": [40], "settings": {"steps": 8}}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("bench.yaml")


def grid(path: Path, content: dict[str, Any], *overrides: str) -> list[Cell]:
    path.write_text(yaml.safe_dump(content))
    return cells(read_bench(path, overrides))


def told(path: Path, content: dict[str, Any], *overrides: str) -> list[str]:
    with pytest.raises(UsageError) as error:
        grid(path, content, *overrides)
    return str(error.value).splitlines()


def test_every_combination_is_a_run(path: Path) -> None:
    content = SMALL | {
        "methods": ["fixmatch", {"method": "fixmatch", "name": "low bar", "threshold": 0.5, "lr": 0.01}],
        "data": ["digits", {"source": "digits", "name": "few", "val": 50}],
        "labels": [40, {"labels_per_class": 2}, {"fraction": 0.5}, "all"],
        "seeds": "3:5",
    }
    found = grid(path, content)
    assert len(found) == 2 * 4 * 3 * 2
    assert {cell.labels for cell in found} == {"40", "2-per-class", "50-percent", "all"}
    assert {str(cell.path) for cell in found if (cell.data, cell.labels, cell.seed) == ("few", "40", 3)} == {
        "few/labels-40/supervised_strong/seed-3", "few/labels-40/fixmatch/seed-3", "few/labels-40/low-bar/seed-3",
    }  # fmt: skip
    (one,) = [cell for cell in found if cell.name == "few, 2-per-class labels, low bar, seed 4"]
    config = one.config
    assert (config.seed, config.seeds, config.baseline, config.recipe) == (4, None, False, "quick")
    assert (config.data.source, config.data.val, config.data.labels_per_class) == ("digits", 50, 2)
    assert (config.method.options["threshold"], config.train.lr, config.train.steps) == (0.5, 0.01, 8)
    assert found[0].config.train.lr == 0.1
    assert [cell.seed for cell in found] == sorted(cell.seed for cell in found)  # everything has its first seed first


def test_the_baseline_is_run_too(path: Path) -> None:
    def methods(**more: Any) -> list[str]:
        return [cell.method for cell in grid(path, SMALL | more)]

    assert methods() == ["supervised_strong", "fixmatch"]
    assert methods(baseline="supervised") == ["supervised", "fixmatch"]
    assert methods(baseline="fixmatch") == methods(baseline="none") == methods(baseline=None) == ["fixmatch"]
    named = {"method": "fixmatch", "name": "plain", "threshold": 0.5}
    assert methods(baseline=named) == ["plain", "fixmatch"]


def test_an_axis_or_setting_of_the_command_line(path: Path) -> None:
    found = grid(path, SMALL, "seeds=0,2", "labels=40,80", "methods=[supervised]", "baseline=none", "train.lr=0.5")
    assert [(cell.method, cell.labels, cell.seed) for cell in found] == [
        ("supervised", "40", 0), ("supervised", "80", 0), ("supervised", "40", 2), ("supervised", "80", 2),
    ]  # fmt: skip
    assert {cell.config.train.lr for cell in found} == {0.5}
    assert "'seed' belongs to the axis `seeds`" in told(path, SMALL, "seed=3")[0]


def test_labels_may_be_those_of_the_data(path: Path) -> None:
    content = {key: value for key, value in SMALL.items() if key != "labels"}
    assert [str(cell.path) for cell in grid(path, content)] == [
        "digits/supervised_strong/seed-0", "digits/fixmatch/seed-0",
    ]  # fmt: skip


def test_protocols_and_add_ons_by_name(path: Path) -> None:
    path.write_text(yaml.safe_dump(SMALL | {"data": ["voc"], "methods": ["softmatch+seval"]}))
    found = read_bench(path)
    assert found.data == (Choice("voc", {"data.protocol": "voc"}),)
    assert found.methods[1] == Choice("softmatch+seval", {"method": "softmatch", "addon": "seval"})
    mapping = {"method": "softmatch+seval", "addon.target_precision": 0.8}
    path.write_text(yaml.safe_dump(SMALL | {"methods": [mapping]}))
    (_, entry) = read_bench(path).methods
    assert entry.name == "softmatch+seval"
    assert entry.settings == {"method": "softmatch", "addon": "seval", "addon.target_precision": 0.8}


COUNTS = ("labels", "labels_per_class", "fraction")


def asked(cell: Cell) -> dict[str, Any]:
    """How many labels a run has, in the unit in which it is said."""
    data = cell.config.data
    return {key: value for key in COUNTS if (value := getattr(data, key)) is not None}


def test_all_labels_are_all_whatever_is_said_further_up(path: Path) -> None:
    for settings in ({"labels": 40}, {"data": {"fraction": 0.1}}, {"labels_per_class": 3}):
        content = SMALL | {"labels": ["all", 20], "settings": settings | {"steps": 8}, "baseline": None}
        assert [(cell.labels, asked(cell)) for cell in grid(path, content)] == [("all", {}), ("20", {"labels": 20})]
    content = SMALL | {"data": ["imagenet10", {"source": "digits", "labels": 40}], "labels": "all", "baseline": None}
    assert [asked(cell) for cell in grid(path, content)] == [{}, {}]
    del content["labels"]
    assert [asked(cell) for cell in grid(path, content)] == [{"fraction": 0.1}, {"labels": 40}]


def test_a_number_of_labels_takes_the_place_of_those_further_up(path: Path) -> None:
    content = SMALL | {"labels": [{"fraction": 0.1}], "settings": {"labels_per_class": 3}, "baseline": None}
    assert [asked(cell) for cell in grid(path, content)] == [{"fraction": 0.1}]
    content = SMALL | {"data": ["imagenet10"], "labels": [1000], "baseline": None}
    assert [asked(cell) for cell in grid(path, content)] == [{"labels": 1000}]
    assert [asked(cell) for cell in grid(path, content, "labels_per_class=2")] == [{"labels_per_class": 2}]
    content = SMALL | {"labels": [{"fraction": 0.1, "labels_per_class": 3}]}
    assert "data.labels_per_class and data.fraction are both given" in told(path, content)[0]


def test_a_name_with_an_add_on_and_its_options(path: Path) -> None:
    for mapping in (
        {"method": "softmatch+seval", "addon": {"target_precision": 0.8}},
        {"method": "softmatch+seval", "addon": {"name": "seval", "target_precision": 0.8}},
        {"method": "softmatch+seval", "addon": "seval", "addon.target_precision": 0.8},
        {"method": "softmatch+seval", "addon.name": "seval", "target_precision": 0.8},
    ):
        (cell,) = grid(path, SMALL | {"methods": [mapping], "baseline": None, "settings": {"recipe": "none"}})
        assert (cell.method, cell.config.addon.name) == ("softmatch+seval", "seval")
        assert cell.config.addon.options == {"target_precision": 0.8}


# Mistakes


@pytest.mark.parametrize("more", ({"addon": "daso"}, {"addon": {"name": "daso"}}, {"addon.name": "daso"}))
def test_two_add_ons_in_one_entry(path: Path, more: dict[str, Any]) -> None:
    (line,) = told(path, SMALL | {"methods": [{"method": "fixmatch+seval", "name": "both"} | more]})
    assert line.startswith("bench.yaml: methods: {'addon")
    assert line.endswith(
        "'fixmatch+seval' adds seval, and `addon` says daso: expected one of them. "
        "Write `method: fixmatch, addon: daso`, or leave `addon` out."
    )


@pytest.mark.parametrize(
    ("key", "message"),
    (
        ("metods", "bench.yaml: 'metods' is no axis. Did you mean 'methods'?"),
        ("batch_size", "bench.yaml: 'batch_size' is no axis. It is a setting: write it under `settings:`."),
        ("steps", "bench.yaml: 'steps' is no axis. It is a setting: write it under `settings:`."),
        ("label", "bench.yaml: 'label' is no axis. Did you mean 'labels'?"),
        ("seed", "bench.yaml: 'seed' is no axis. Did you mean 'seeds'?"),
        ("method", "bench.yaml: 'method' is no axis. Did you mean 'methods'?"),
        ("addon", "bench.yaml: 'addon' is no axis. Did you mean 'methods'?"),
        ("source", "bench.yaml: 'source' is no axis. Did you mean 'data'?"),
        ("name", "bench.yaml: 'name' has no place here: a bench names its folders itself."),
        ("xyz", "bench.yaml: 'xyz' is no axis. Known: baseline, data, labels, methods, seeds, settings."),
    ),
)
def test_unknown_axes(path: Path, key: str, message: str) -> None:
    assert told(path, SMALL | {key: [1]}) == [message]


def test_all_mistakes_of_the_axes_at_once(path: Path) -> None:
    content = {
        "methods": ["fixmatch", "fixmatch", {"name": "x"}, 3, {"method": "fixmatch", "name": "y", "val": 3}],
        "labels": [True],
        "seeds": "1:1",
        "settings": {"method": "fixmatch", "seed": 1, "baseline": True, "name": "z"},
    }
    lines = told(path, content)
    assert lines[0] == f"{len(lines) - 1} mistakes in the settings:"
    for part in (
        "methods: two entries are called 'fixmatch'. Give one of them another `name`.",
        "methods: {'name': 'x'}: expected `method: NAME` in it.",
        "methods: 3: expected a method, such as fixmatch, or a mapping of settings.",
        "methods 'y': 'data.val' belongs to the axis `data`.",
        "data: expected at least one entry, such as `data: [mnist5k]`.",
        "labels: True: expected a number of labels, `all`, or such as {labels_per_class: 4}, or a mapping of settings.",
        "seeds: 1:1: expected at least one seed, and none twice.",
        "settings: 'method.name' belongs to the axis `methods`.",
        "settings: 'seed' belongs to the axis `seeds`.",
        "settings: 'name' has no place here",
        "settings: 'baseline' has no place here",
    ):
        assert [line for line in lines if line.startswith(f"- bench.yaml: {part}")], (part, lines)
    assert len(lines) == 12


def test_mistakes_in_settings_name_the_entry_once(path: Path) -> None:
    content = SMALL | {
        "methods": ["fixmach", {"method": "fixmatch", "name": "low", "treshold": 0.5}],
        "labels": [40, 80],
        "settings": {"step": 8, "lr": "fast"},
    }
    lines = told(path, content)
    assert "- bench.yaml, settings: 'step' is no known key. Did you mean 'steps'?" in lines
    assert "- bench.yaml, methods 'low': 'treshold' is no known key. Did you mean 'threshold'?" in lines
    assert any(line.startswith("- bench.yaml: method 'fixmach' is unknown. Did you mean 'fixmatch'?") for line in lines)
    assert any(line.startswith("- bench.yaml, settings: train.lr='fast': ") for line in lines)
    assert len(lines) == len(set(lines)) == 5


@pytest.mark.parametrize(
    ("entry", "name"),
    (
        (40, "40"),
        ("all", "all"),
        ({"lists": "splits/92/"}, "92"),
        ({"labels": 40, "noise": 0.2}, "40-noise-0.2"),
        ({"data.gamma_labeled": 20, "data.head_labeled": 50}, "gamma_labeled-20-head_labeled-50"),
        ({"labels": 40, "name": "few"}, "few"),
    ),
)
def test_labels_are_called_after_their_number(entry: Any, name: str) -> None:
    assert labels_choice(entry).name == name


@pytest.mark.parametrize(
    ("entry", "name"),
    (
        ({"source": "a/digits.npz"}, "digits"),
        ({"data.source": "photos"}, "photos"),
        ({"data": {"source": "photos", "val": 3}}, "photos"),
        ({"protocol": "voc", "lists": "splits/92"}, "voc"),
        ({"source": "photos", "name": "mine"}, "mine"),
    ),
)
def test_data_are_called_after_their_source(entry: dict[str, Any], name: str) -> None:
    assert data_choice(entry).name == name


def test_names_that_would_share_a_folder(path: Path) -> None:
    methods = [{"method": "fixmatch", "name": "a b"}, {"method": "fixmatch", "name": "a/b"}]
    (line,) = told(path, SMALL | {"methods": methods})
    assert "'digits, 40 labels, a b, seed 0' and 'digits, 40 labels, a/b, seed 0' would share the folder" in line


def test_a_file_that_is_not_there_or_broken(path: Path) -> None:
    def message() -> str:
        with pytest.raises(UsageError) as error:
            read_bench(path)
        return str(error.value)

    assert "bench.yaml: no such file of settings." in message()
    path.write_text("methods: [")
    assert "bench.yaml, line 1: not readable as YAML" in message()
    path.write_text("- fixmatch")
    assert "expected settings as `key: value`" in message()
