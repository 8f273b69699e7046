"""The published data sets of classification: what they hold, where they are looked for, and whether these are they.

What a protocol prescribes beside the images, the network and the length of training, is the recipe of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from sfumato.data.listing import Listing, Problem, plural
from sfumato.errors import DataError, UsageError, check_choice

ClassProtocolName = Literal[
    "cifar10", "cifar100", "eurosat", "imagenet10", "semi_aves", "stl10", "svhn", "webvision10"
]  # fmt: skip
HOME = "SFUMATO_DATA"
"""The environment variable of the folder that holds a folder of each data set, beside data/ of the working folder."""

_FOLDERS = "train/CLASS/ and test/CLASS/ with the images"
_PARQUET = "train.parquet and test.parquet"


@dataclass(frozen=True, slots=True)
class ClassProtocol:
    """Images to train on, labelled and unlabelled together, and to test on; several numbers: any of these."""

    title: str
    classes: int
    train: tuple[int, ...]
    test: tuple[int, ...]
    layout: str  # what is expected in its folder
    get: str = ""  # where to get what cannot be downloaded by itself

    @property
    def fetched(self) -> bool:
        """Whether `download=true` knows how to."""
        return not self.get


CLASS_PROTOCOLS: Mapping[ClassProtocolName, ClassProtocol] = {
    "cifar10": ClassProtocol(
        "CIFAR-10", 10, (50000,), (10000,), f"{_PARQUET}, {_FOLDERS}, or cifar-10-batches-py/ of torchvision"
    ),
    "cifar100": ClassProtocol(
        "CIFAR-100", 100, (50000,), (10000,), f"{_PARQUET}, {_FOLDERS}, or cifar-100-python/ of torchvision"
    ),
    "eurosat": ClassProtocol("EuroSAT", 10, (21600,), (5400,), "CLASS/ with the images, perhaps below 2750/"),
    "imagenet10": ClassProtocol(
        "ImageNet", 1000, (1281167,), (50000,), "train/CLASS/ and val/CLASS/ with the images",
        get="image-net.org, after signing its terms; its validation images belong into class folders",
    ),
    "semi_aves": ClassProtocol(
        "Semi-Aves", 200, (32599, 30599), (8000, 4000),
        "l_train_val.txt (or l_train.txt and val.txt), u_train_in.txt, test.txt, lines `image class`, and the images",
        get="github.com/cvl-umass/semi-inat-2020 for the images, and its authors' lists of them",
    ),
    "stl10": ClassProtocol("STL-10", 10, (105000,), (8000,), "stl10_binary/ of torchvision"),
    "svhn": ClassProtocol(
        "SVHN", 10, (604388, 73257), (26032,),
        "train_32x32.mat, test_32x32.mat and extra_32x32.mat of torchvision, or parquet files of these names",
    ),
    "webvision10": ClassProtocol(
        "WebVision 1.0", 1000, (2439574,), (50000,),
        "info/train_filelist_google.txt, info/train_filelist_flickr.txt, info/val_filelist.txt and the images, or "
        "train/CLASS/ and val/CLASS/",
        get="data.vision.ee.ethz.ch/cvl/webvision, after its terms",
    ),
}  # fmt: skip
assert set(CLASS_PROTOCOLS) == set(get_args(ClassProtocolName))

_TEST_ON_VAL = ("imagenet10", "webvision10")  # whose test labels are not public: papers report on validation images
_LAST_FIFTH = "eurosat"  # of each class, in the order of the file names, is what USB tests on


def find(name: str, *, download: bool = False) -> Path:
    """The folder of a data set: the first of `places` that holds something; `download` puts it there if none does.

    With `download` the files of torchvision that are there are looked through, and what is missing is fetched.

    Raises DataError that says where it was looked for, what is expected there and how to get it.
    """
    protocol = _known(name)
    there = next((place for place in places(name) if place.is_dir() and any(place.iterdir())), None)
    if download and (there is None or _of_torchvision(there)):
        return fetch(name, there or places(name)[0])
    if there is not None:
        return there
    looked = " and ".join(str(place) for place in places(name))
    get = (
        f"Get it with download=true (torchvision's own files, into {places(name)[0]})"
        if protocol.fetched
        else f"It cannot be downloaded by itself; get it from {protocol.get}"
    )
    raise DataError(
        f"protocol={name}: {protocol.title} was looked for in {looked}, and is not there. Expected: {protocol.layout}. "
        f"{get}. Or say where it is: data=PATH, or {HOME}=FOLDER for the folder that holds {name}/."
    )


def _of_torchvision(folder: Path) -> bool:
    from sfumato.data.sources import torchvision_files

    return torchvision_files.recognizes(folder)


def places(name: str) -> list[Path]:
    """Where a data set is looked for when no source is given."""
    home = os.environ.get(HOME)
    return [*([Path(home) / name] if home else []), Path("data") / name]


def inner(name: str, folder: Path) -> Path:
    """Where in the folder of a data set its class folders are."""
    below = ("eurosat/2750", "2750") if name == "eurosat" else ()
    return next((folder / place for place in below if (folder / place).is_dir()), folder)


def fetch(name: str, folder: Path) -> Path:
    """Download a data set by torchvision. Raises UsageError where that has no way to, DataError when it fails."""
    protocol = _known(name)
    if not protocol.fetched:
        raise UsageError(f"download=true: {protocol.title} cannot be fetched by itself. Get it from {protocol.get}.")
    from sfumato.data.sources import torchvision_files  # which takes a second to import

    try:
        torchvision_files.download(name, folder)
    except Exception as error:  # whatever its transport raises
        raise DataError(
            f"protocol={name}: {protocol.title} could not be downloaded into {folder} "
            f"({type(error).__name__}: {error}). Check the connection, or get the files elsewhere: {protocol.layout}."
        ) from error
    return folder


def as_published(name: str, listing: Listing, source: str) -> Listing:
    """The listing with the split that papers test on, and with what differs from the published data as its problems.

    Raises UsageError for an unknown name.
    """
    protocol = _known(name)
    split = listing.split
    if not (split == "test").any():
        if name in _TEST_ON_VAL:
            split = np.where(split == "val", "test", split)
        elif name == _LAST_FIFTH:
            split = _last_fifth(listing)
    listing = replace(listing, split=split)
    return replace(listing, problems=[*listing.problems, *_differences(name, protocol, listing, source)])


def _known(name: str) -> ClassProtocol:
    check_choice("data", "protocol", name, CLASS_PROTOCOLS)
    return CLASS_PROTOCOLS[name]  # type: ignore[index]  # as has just been checked


def _last_fifth(listing: Listing) -> np.ndarray:
    split = listing.split.astype("<U5")
    for label in range(len(listing.classes)):
        rows = sorted(np.flatnonzero(listing.labels == label).tolist(), key=lambda row: listing.names[row])
        split[rows[int(0.8 * len(rows)) :]] = "test"
    return split


def _differences(name: str, protocol: ClassProtocol, listing: Listing, source: str) -> list[Problem]:
    """An error for each number that is not the published one; a note on the numbers where all are."""
    training = ~np.isin(listing.split, ["val", "test"])
    found = {
        "class": (len(listing.classes), (protocol.classes,)),
        "training image": (int(training.sum()), protocol.train),
        "test image": (int((listing.split == "test").sum()), protocol.test),
    }
    wrong = [
        Problem(
            "error",
            f"{source}: {count:,} {plural(count, what).split(' ', 1)[1]}, expected "
            f"{' or '.join(f'{one:,}' for one in expected)} of {protocol.title}. Expected: {protocol.layout}. Complete "
            f"it, or leave out protocol={name}; protocol=none recipe={name} keeps its settings.",
        )
        for what, (count, expected) in found.items()
        if count not in expected
    ]
    if wrong:
        return wrong
    images = f"{found['training image'][0]:,} training and {found['test image'][0]:,} test images"
    return [Problem("note", f"{protocol.title}: {images} of {protocol.classes:,} classes, as published.")]
