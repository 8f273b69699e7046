"""What is told of a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sfumato.run.trained import Trained, no_run_metrics


@pytest.mark.parametrize(
    ("addon", "label"), [({"name": "seval"}, "fixmatch+seval"), ({"name": None}, "fixmatch"), (None, "fixmatch")]
)
def test_figures_on_other_data_are_called_as_the_run_is(addon: Any, label: str) -> None:
    card = {"method": {"name": "fixmatch"}, "seed": 0, "steps": 4} | ({} if addon is None else {"addon": addon})
    net: Any = nn.Linear(1, 2)
    trained = Trained(Path("run"), card, net, 1.5, torch.device("cpu"))
    found = no_run_metrics(trained, {"test": {"acc": 0.5}}, 8)
    assert (found["method"], found["images"]["test"], found["temperature"]) == (label, 8, 1.5)
