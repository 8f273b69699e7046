"""Tables with a row for every sample are refused where the machine has no room for them, before they are taken."""

from __future__ import annotations

import re

import pytest

from sfumato.errors import UsageError
from sfumato.methods import Facts, build
from sfumato.running import memory


def test_sizes_are_readable():
    assert memory.readable(3 * 2**19) == "1.5 MiB"
    assert memory.readable(1025 * 2**30) == "1,025.0 GiB"


def test_what_fits_or_cannot_be_known_is_taken(monkeypatch):
    assert memory.machine_memory() is None or memory.machine_memory() > 2**20
    for there in (100, None):
        monkeypatch.setattr(memory, "machine_memory", lambda there=there: there)
        memory.check_fits("The rows", 100, "")


@pytest.mark.parametrize(
    ("method", "facts", "text"),
    [
        (
            "simmatch",
            Facts(10, 5, num_labeled=3_000_000),
            "The features of 3,000,000 labeled samples, 128 numbers each, take 1.4 GiB, and this machine has 1.0 GiB "
            "of memory. Use a smaller dim, or a method that keeps none of each sample, such as comatch.",
        ),
        (
            "flexmatch",
            Facts(150, 3_000_000, dense=True),
            "The shares of 150 classes in each of 3,000,000 images take 1.7 GiB, and this machine has 1.0 GiB of "
            "memory. Train on fewer unlabeled images, or use a method that keeps none of each image, such as "
            "freematch.",
        ),
    ],
)
def test_what_does_not_fit_says_its_size_and_what_to_do(monkeypatch, method, facts, text):
    monkeypatch.setattr(memory, "machine_memory", lambda: 2**30)
    with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
        build(method, facts)
