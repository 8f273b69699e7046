"""Rendered pages, made once: rendering is what takes time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from sfumato.report import write_report
from sfumato.report.pictures import Images
from tests.report import fake_masks, fake_run

ODD = ["<b>bold</b>", "$x_1$ & co", 'say "hi"', "ünï çødé", "a/b", "c", "d", "e", "f", "https://example.org/x"]


@dataclass(frozen=True)
class Page:
    folder: Path
    path: Path
    text: str


def page(folder: Path, images: Images | None = fake_run.images) -> Page:
    path = write_report(folder, images=images)
    return Page(folder, path, path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A method with its baseline and a verdict."""
    return page(fake_run.write_pair(tmp_path_factory.mktemp("runs") / "pair"))


@pytest.fixture(scope="session")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A method with its baseline and a verdict, of images with masks."""
    return page(fake_masks.write_pair(tmp_path_factory.mktemp("runs") / "masks", "csl"), None)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Five methods, three seeds."""
    return page(fake_run.write_demo(tmp_path_factory.mktemp("runs") / "demo"))


@pytest.fixture(scope="session")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Class names that would break a page which trusts them."""
    return page(fake_run.write_pair(tmp_path_factory.mktemp("runs") / "odd", classes=ODD, n=300))


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A thousand classes."""
    names = [f"n{1440000 + 37 * c:08d}" for c in range(1000)]
    folder = tmp_path_factory.mktemp("runs") / "many"
    return page(fake_run.write_pair(folder, fake_run.FLAT, classes=names, steps=250, n=2000))
