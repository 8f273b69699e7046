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
def few_of_cifar10(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of CIFAR-10 with the first 3,000 of its training and 200 of its test images."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    folder = tmp_path_factory.mktemp("few") / "cifar10"
    folder.mkdir()
    for name, count in (("train.parquet", 3000), ("test.parquet", 200)):
        whole = parquet.read_table(shared / "data" / "cifar10" / name)
        parquet.write_table(whole.slice(0, count), folder / name)
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
