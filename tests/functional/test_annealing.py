import math

import pytest
import torch

from sfumato.errors import UsageError
from sfumato.functional.annealing import annealing_threshold, unlearned, unsure


@pytest.mark.parametrize("classes", [2, 10])
def test_the_threshold_rises_from_chance_to_one(classes):
    for rise in ("linear", "exp", "log"):
        etas = [annealing_threshold(rise, t / 20, classes) for t in range(21)]
        assert etas == sorted(etas)
        assert etas[0] == pytest.approx(1 / classes, abs=math.exp(-5))
        assert etas[-1] == pytest.approx(1.0, abs=math.exp(-5))
    assert annealing_threshold("none", 0.0, classes) == 1.0
    early = [annealing_threshold(rise, 0.5, classes) for rise in ("exp", "linear", "log")]
    assert early == sorted(early)


def test_an_unknown_rise_says_which_there_are():
    with pytest.raises(UsageError, match=r"rise='logg'\): expected one of none, linear, exp, log. Did you mean 'log'"):
        annealing_threshold("logg", 0.5, 3)


def test_what_counts():
    """Four samples: learned, a sure mistake, doubtful, even."""
    p = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3]]).log()
    y = torch.tensor([0, 0, 0, 2])
    assert unlearned(p, y, 0.6).tolist() == [0, 1, 1, 1]
    assert unsure(p, 0.6).tolist() == [0, 0, 1, 1]
    maps = p.T[None, :, :, None]  # the same as one image of four pixels
    assert unlearned(maps, y[None, :, None], 0.6).flatten().tolist() == [0, 1, 1, 1]
    assert unsure(maps, 0.6).flatten().tolist() == [0, 0, 1, 1]
