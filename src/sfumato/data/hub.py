"""Data sets of the Hugging Face hub, `hf:OWNER/NAME`: fetched once when asked for, read from the disk ever after."""

from __future__ import annotations

import shutil
from pathlib import Path

from sfumato.data.protocols import places
from sfumato.errors import DataError, UsageError

PREFIX = "hf:"


def find(source: str, *, download: bool = False) -> Path:
    """The folder of a data set that was saved before, data/OWNER--NAME or below SFUMATO_DATA; `download` saves it.

    source: hf:OWNER/NAME, or hf:OWNER/NAME:CONFIGURATION. Reading needs pyarrow, downloading the package `datasets`.

    Raises DataError when it is not there or cannot be fetched, UsageError without the package.
    """
    name = source.removeprefix(PREFIX)
    candidates = places(name.replace("/", "--").replace(":", "--"))
    there = next((place for place in candidates if place.is_dir()), None)
    if there is not None:
        return there
    if not download:
        raise DataError(
            f"{source}: looked for in {' and '.join(map(str, candidates))}, and not there. download=true fetches it "
            "from the Hugging Face hub once; later runs read what is on the disk."
        )
    return _fetch(name, candidates[0])


def _fetch(name: str, folder: Path) -> Path:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(f'{PREFIX}{name}: needs the package datasets: pip install "sfumato[hf]"') from error
    owner, _, configuration = name.partition(":")
    part = folder.with_name(f"{folder.name}.part")
    try:
        datasets.load_dataset(owner, configuration or None).save_to_disk(str(part))
    except Exception as error:  # whatever its transport raises
        shutil.rmtree(part, ignore_errors=True)
        why = (str(error).strip() or "no reason given").splitlines()[0]
        raise DataError(
            f"{PREFIX}{name}: could not be fetched ({type(error).__name__}: {why}). "
            "Check the name and the connection, or give the files that were fetched elsewhere: data=PATH."
        ) from error
    part.replace(folder)  # a reader never sees half of it
    return folder
