"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ranks import Ranks

torch.set_num_threads(1)  # the tensors are small: two threads would wait for each other

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden vectors and data sets that is not part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared"
    folder = Path(os.environ.get("SFUMATO_SHARED", beside))
    if not folder.is_dir():
        pytest.skip("needs ../shared, or SFUMATO_SHARED naming it")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Callable[[str], Arrays]:
    """`golden("metrics_00")` gives the arrays of one golden file by name."""

    def load(name: str) -> Arrays:
        with np.load(shared / "golden" / f"{name}.npz") as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Ranks]:
    """Two processes in a gloo group: `two_ranks.call(function, *args)` runs a module's function on both."""
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture
def files_stay_whole(request: pytest.FixtureRequest) -> bool:
    """Whether all tests of a file run in one process: without pytest-xdist they do, and with it if it keeps them so."""
    worker: dict[str, list[str]] | None = getattr(request.config, "workerinput", None)
    return worker is None or "loadfile" in worker["mainargv"]
