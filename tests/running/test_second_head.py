"""A second last layer and its average."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from sfumato.running.second_head import SecondHead
from sfumato.teacher import Ema
from tests.methods.problems import Echo, Tiny


def made(dense=False):
    torch.manual_seed(0)
    return SecondHead(Tiny(5, dense=dense), 5, dense=dense)


def test_it_is_such_as_the_networks_last_layer():
    net = Tiny(5, dense=True)
    own = SecondHead(net, 5, dense=True)
    assert isinstance(own.head, nn.Conv2d)
    assert own.head.weight.shape == net.head.weight.shape
    assert not torch.equal(own.head.weight, net.head.weight)
    assert own(torch.randn(2, 8, 3, 4)).shape == (2, 5, 3, 4)
    assert own(torch.randn(2, 8)).shape == (2, 5)


@pytest.mark.parametrize(("dense", "shape"), [(False, (2, 5)), (True, (2, 5, 3, 4))])
def test_of_a_network_that_does_not_name_its_last_layer(dense, shape):
    head = SecondHead(Echo(), 5, dense=dense)
    assert head(torch.randn(shape)).shape == shape


def test_maps_are_brought_to_the_size_asked_for():
    head, x = made(dense=True), torch.randn(2, 8, 3, 4)
    fine = head(x, (6, 8))
    assert fine.shape == (2, 5, 6, 8)
    torch.testing.assert_close(fine[..., [0, -1], :][..., [0, -1]], head(x)[..., [0, -1], :][..., [0, -1]])  # corners
    torch.testing.assert_close(head.average(x, (6, 8)), fine)  # until the first step


def test_the_average_moves_as_the_networks_does():
    head = made()
    student = copy.deepcopy(head.head)
    teacher = Ema(student, momentum=0.7, ramp=True)
    draw = torch.Generator().manual_seed(1)
    for step in range(6):
        for _ in range(2):  # two micro-batches
            head.follow(step, teacher.momentum_at(step))
        for got, want in zip(head.averaged.parameters(), teacher.module.parameters(), strict=True):
            torch.testing.assert_close(got, want)
        with torch.no_grad():
            for mine, theirs in zip(head.head.parameters(), student.parameters(), strict=True):
                mine += torch.randn(mine.shape, generator=draw)
                theirs.copy_(mine)
        teacher.update(student, step)
        for got, want in zip(head.deployed().parameters(), teacher.module.parameters(), strict=True):
            torch.testing.assert_close(got, want)


def test_without_an_average_the_layer_itself_is_deployed():
    head = made()
    head.follow(0, 0.0)
    with torch.no_grad():
        head.head.weight += 1
    assert torch.equal(head.deployed().weight, head.head.weight)


def test_the_average_is_saved_and_not_trained():
    head = made()
    assert {name.split(".")[0] for name, one in head.named_parameters() if one.requires_grad} == {"head"}
    head.follow(0, 0.5)
    with torch.no_grad():
        head.head.weight += 1
    head.follow(1, 0.5)
    file = io.BytesIO()
    torch.save(head.state_dict(), file)
    file.seek(0)
    torch.manual_seed(7)
    resumed = SecondHead(Tiny(5, dense=False), 5, dense=False)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(3, 8)
    torch.testing.assert_close(resumed.average(x), head.average(x))
    assert not torch.equal(head.average(x), head(x))
    resumed.follow(1, 0.5)
    torch.testing.assert_close(resumed.average(x), head.average(x))


def test_it_keeps_full_precision_under_autocast():
    head, x = made(), torch.randn(3, 8)
    want = head(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(x), want)
        assert head(x.bfloat16()).dtype == torch.float32
