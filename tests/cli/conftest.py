"""What the tests of the command line share: a run on images with masks, made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sfumato.cli import app
from tests.run.masks_on_disk import with_masks

Call = Callable[..., Result]
Refused = Callable[..., None]
# enough for the squares of the generated images to be found
MASK_SETTINGS = ("steps=24", "batch_size=4", "eval_every=12", "lr=0.01", "ema=0.5", "method=fixmatch")
# enough to see that all works
SHORT = ("steps=4", "batch_size=2", "eval_every=4", "--no-report")
LABELS_ONLY = (*SHORT, "method=supervised_strong", "-q")


@pytest.fixture(scope="session")
def call() -> Call:
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def refused() -> Refused:
    """One message, the exit code, no traceback."""

    def check(done: Result, code: int, *parts: str) -> None:
        assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr)
        for part in parts:
            assert part in done.stderr, (part, done.stderr)
        assert "Traceback" not in done.stderr

    return check


@pytest.fixture(scope="session")
def mask_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 images with a mask, 8 without."""
    return with_masks(tmp_path_factory.mktemp("data") / "squares")


@pytest.fixture(scope="session")
def mask_run(mask_source: Path, call: Call, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "masks"
    done = call("train", mask_source, *MASK_SETTINGS, "--no-report", "-q", "-o", folder)
    assert done.exit_code == 0, (done.stdout, done.stderr)
    return folder
