"""Whole images of any size: windows cover them without slivers, averages are probabilities, maps need little memory."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from sfumato.errors import UsageError
from sfumato.inference import segment, segment_maps, window_starts
from sfumato.types import Output


class Pointwise(nn.Module):
    """A 1x1 convolution: what it says of a pixel does not depend on the window. Remembers what it was shown."""

    def __init__(self, classes: int = 3, multiple: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Conv2d(2, classes, 1)
        self.dropout = nn.Dropout(0.5)
        self.multiple = multiple
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> Output:
        assert x.shape[2] % self.multiple == 0
        assert x.shape[3] % self.multiple == 0
        torch.rand(3)  # a layer that draws in eval mode
        self.seen.append(tuple(x.shape))
        return Output(self.dropout(self.head(x)))


class Positional(nn.Module):
    """Says where in its window a pixel lies: averages of windows differ from any single one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[2:]
        down = torch.linspace(-1, 1, h).view(1, 1, h, 1).expand(len(x), 1, h, w)
        across = torch.linspace(-1, 1, w).view(1, 1, 1, w).expand(len(x), 1, h, w)
        return 4 * torch.cat([down, across, x[:, :1]], dim=1)


def image(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, height, width, generator=torch.Generator().manual_seed(height + width))


def by_hand(net: nn.Module, x: torch.Tensor, crop: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
    """Averaged probabilities of all windows, with whole planes and a plane of counts."""
    tops, lefts = (window_starts(*axis) for axis in zip(x.shape[1:], crop, stride, strict=True))
    total, times = torch.zeros(3, *x.shape[1:]), torch.zeros(x.shape[1:])
    for top in tops:
        for left in lefts:
            place = slice(top, top + crop[0]), slice(left, left + crop[1])
            total[:, *place] += net(x[None, :, *place]).softmax(dim=1)[0]
            times[place] += 1
    return total / times


@pytest.mark.parametrize("length, window, stride", [(10, 10, 6), (11, 10, 6), (100, 30, 20), (90, 30, 20), (7, 1, 1)])
def test_windows_are_full_and_reach_both_borders(length, window, stride):
    starts = window_starts(length, window, stride)
    assert starts[0] == 0
    assert starts[-1] == length - window
    assert all(0 < later - before <= stride for before, later in pairwise(starts))


def test_as_many_windows_as_the_published_protocol():
    """Cityscapes: 1024 x 2048, crop 798, stride 532: two by four windows, none truncated."""
    assert (window_starts(1024, 798, 532), window_starts(2048, 798, 532)) == ([0, 226], [0, 532, 1064, 1250])


@pytest.mark.parametrize("size", [(23, 31), (16, 16), (16, 40), (9, 40), (5, 6), (33, 17)])
@pytest.mark.parametrize("stride", [None, 5, (16, 3)])
def test_sliding_equals_full_for_a_pointwise_network(size, stride):
    net, x = Pointwise().eval(), image(*size)
    full = segment(net, x).softmax(dim=0)
    net.seen.clear()
    logits = segment(net, x, mode="sliding", crop=(16, 16), stride=stride)
    assert (logits.shape, logits.dtype) == ((3, *size), torch.float32)
    torch.testing.assert_close(logits.exp(), full)
    assert all(shape[1:] == (2, 16, 16) and shape[0] <= 4 for shape in net.seen)  # no slivers


@pytest.mark.parametrize("stride", [(10, 8), (4, 3), (1, 8), (10, 1)])
def test_overlapping_windows_are_averaged_to_probabilities(stride):
    net, x = Positional(), image(37, 29)
    p = segment(net, x, mode="sliding", crop=(10, 8), stride=stride).exp()
    torch.testing.assert_close(p.sum(dim=0), torch.ones(37, 29), rtol=0, atol=1e-6)
    torch.testing.assert_close(p, by_hand(net, x, (10, 8), stride))


def test_stride_is_two_thirds_of_the_crop():
    net, x = Positional(), image(40, 40)
    torch.testing.assert_close(
        segment(net, x, mode="sliding", crop=(12, 16)), segment(net, x, mode="sliding", crop=(12, 16), stride=(8, 10))
    )


@pytest.mark.parametrize("multiple", [1, 7, 16])
@pytest.mark.parametrize("options", [{}, {"mode": "padded", "crop": (30, 41)}, {"mode": "sliding", "crop": (15, 20)}])
def test_inputs_are_padded_to_a_multiple_and_logits_cut(multiple, options):
    net, x = Pointwise(multiple=multiple).eval(), image(23, 31)
    logits = segment(net, x, multiple=multiple, **options)
    expected = net.head(x)
    assert logits.shape == (3, 23, 31)
    torch.testing.assert_close(logits.softmax(dim=0), expected.softmax(dim=0))
    if options.get("mode") != "sliding":
        torch.testing.assert_close(logits, expected)


def test_padded_shows_one_canvas_of_the_size_asked_for():
    net = Pointwise().eval()
    for size in ((23, 31), (40, 40), (1, 2)):
        assert segment(net, image(*size), mode="padded", crop=(40, 40)).shape == (3, *size)
    assert net.seen == [(1, 2, 40, 40)] * 3


@pytest.mark.parametrize("call", [segment, segment_maps])
@pytest.mark.parametrize("options", [{}, {"mode": "sliding", "crop": (8, 8)}])
def test_leaves_modes_gradients_and_random_state(call, options):
    net, still = Pointwise().train(), Pointwise().eval()
    net.head.eval()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (call(one, image(11, 13), **options) for one in (net, still))
    assert torch.equal(torch.get_rng_state(), before)
    assert (net.training, net.head.training, net.dropout.training) == (True, False, True)
    assert torch.is_grad_enabled()
    if call is segment:
        assert torch.equal(first, second)  # dropout was off
        assert not first.requires_grad
    with pytest.raises(UsageError):
        call(nn.Flatten(), image(4, 4))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("options", [{}, {"mode": "sliding", "crop": (40, 30)}, {"mode": "padded", "crop": (150, 90)}])
def test_maps_are_those_of_the_probabilities(options):
    net, x = Positional(), image(141, 70)
    p = segment(net, x, **options).softmax(dim=0)
    maps = segment_maps(net, x, **options)
    assert (maps.labels.dtype, maps.confidence.dtype, maps.entropy.dtype) == (torch.uint8, torch.float32, torch.float32)
    torch.testing.assert_close(maps.confidence, p.amax(dim=0))
    assert float((maps.labels == p.argmax(dim=0)).float().mean()) > 0.999  # but for ties by rounding
    torch.testing.assert_close(maps.entropy, torch.special.entr(p).sum(dim=0) / math.log(3), rtol=1e-4, atol=1e-5)


def test_one_class_is_sure():
    maps = segment_maps(Pointwise(classes=1).eval(), image(5, 5))
    assert (maps.confidence == 1).all()
    assert (maps.entropy == 0).all()


class Peak(torch.overrides.TorchFunctionMode):
    """The largest tensor that any function returned."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_maps_of_a_tall_image_hold_one_row_of_windows():
    """A storage of all class planes would be 40 x 2000 x 20 values."""
    net, height, width, crop = Pointwise(classes=40).eval(), 2000, 20, (16, 16)
    with Peak() as peak:
        segment_maps(net, image(height, width), mode="sliding", crop=crop)
    assert 40 * crop[0] * width <= peak.largest <= max(2 * height * width, 4 * 40 * crop[0] * width)
    with Peak() as peak:
        segment(net, image(height, width), mode="sliding", crop=crop)
    assert peak.largest == 40 * height * width


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("options", [{}, {"mode": "sliding", "crop": (16, 16)}])
def test_an_accelerator_answers_the_same(options):
    net, x = Pointwise().eval(), image(23, 31)
    here, maps = segment(net, x, **options), segment_maps(net, x, **options)
    net = net.cuda()
    assert segment(net, x, **options).device.type == "cuda"
    torch.testing.assert_close(segment(net, x, **options).cpu(), here, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(segment_maps(net, x.cuda(), **options).confidence, maps.confidence, rtol=0, atol=1e-3)


def test_half_precision_is_averaged_in_float32():
    logits = segment(Pointwise().bfloat16().eval(), image(9, 9).bfloat16(), mode="sliding", crop=(4, 4))
    assert logits.dtype == torch.float32


def test_says_what_does_not_fit():
    net, x = Pointwise().eval(), image(20, 30)
    with pytest.raises(UsageError, match=r"segment\(mode='whole'\): expected one of full, sliding, padded"):
        segment(net, x, mode="whole")
    with pytest.raises(UsageError, match=r"image of shape \(1, 2, 20, 30\): expected \(channels, H, W\)"):
        segment(net, x[None])
    for mode in ("sliding", "padded"):
        with pytest.raises(UsageError, match=f"mode='{mode}' with crop=None: expected the height and width"):
            segment(net, x, mode=mode)
    with pytest.raises(
        UsageError, match=r"20 x 30 \(height x width\) does not fit the canvas of 20 x 29: take mode='sl"
    ):
        segment_maps(net, x, mode="padded", crop=(20, 29))
    for stride in (0, 9, (4, 0)):
        with pytest.raises(UsageError, match="expected 1 up to the crop, or pixels would be left out"):
            segment(net, x, mode="sliding", crop=(8, 8), stride=stride)
    with pytest.raises(UsageError, match="multiple=0: expected at least 1"):
        segment(net, x, multiple=0)
    with pytest.raises(
        UsageError, match=r"images of 20 x 30 with logits of shape \(1, 2, 10, 15\): expected \(1, C, 20"
    ):
        segment(nn.AvgPool2d(2), x)
    with pytest.raises(UsageError, match="256 classes do not fit maps of 8 bits: at most 255"):
        segment_maps(Pointwise(classes=256).eval(), x)
