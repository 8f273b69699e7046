"""Predictions leave training untouched; metrics equal those of scikit-learn and torchmetrics where they are defined."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import nn

from sfumato.errors import DataError, UsageError
from sfumato.evaluate import confusion, evaluate, per_class, predict
from sfumato.types import Output

SCALARS = {"acc", "balanced_acc", "f1_macro", "nll", "brier", "ece", "ece_adaptive", "ece_classwise"}


class Net(nn.Module):
    """Batch norm, dropout, a frozen batch norm, and a layer that draws even in eval mode."""

    def __init__(self, answer: str = "output") -> None:
        super().__init__()
        self.answer = answer
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.frozen = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Output | torch.Tensor:
        torch.rand(3)
        h = self.frozen(self.body(x)).mean(dim=(2, 3))
        logits = self.head(h)
        return Output(logits, h) if self.answer == "output" else logits


def names(n: int) -> list[str]:
    return [f"c{i}" for i in range(n)]


def sample(seed: int, n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, classes, generator=draw), torch.randint(0, classes, (n,), generator=draw)


@pytest.mark.parametrize("training", [True, False])
def test_predict_leaves_modes_buffers_and_random_state(training):
    torch.manual_seed(0)
    net = Net().train(training)
    net.frozen.eval()
    modes = [m.training for m in net.modules()]
    state = {k: v.clone() for k, v in net.state_dict().items()}
    images = torch.randn(7, 1, 8, 8)
    random_state = torch.get_rng_state()
    logits = predict(net, (images[i : i + 3] for i in (0, 3, 6)), device="cpu")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((7, 3), torch.float32, False)


def test_predict_of_any_batches_in_eval_mode_is_the_same():
    torch.manual_seed(1)
    net, images = Net(), torch.randn(5, 1, 8, 8)
    whole = predict(net, [images], device="cpu")
    one_by_one = predict(net, images.split(1), device="cpu")
    torch.testing.assert_close(one_by_one, whole)
    plain = Net(answer="tensor")
    plain.load_state_dict(net.state_dict())
    assert torch.equal(predict(plain, [images], device="cpu"), whole)


def test_predict_restores_the_mode_after_an_error():
    net = Net().train()
    with pytest.raises(RuntimeError):
        predict(net, [torch.zeros(1, 2, 8, 8)], device="cpu")
    assert all(m.training for m in net.modules())


def test_predict_of_nothing_says_so():
    with pytest.raises(DataError, match="nothing to predict: no images were given"):
        predict(Net(), [], device="cpu")


def test_half_precision_logits_come_back_in_float32():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).bfloat16()
    assert predict(net, [torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)], device="cpu").dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_agrees_with_scikit_learn(classes):
    logits, y = sample(classes, 300, classes)
    # class 0 has no label and class 1 is never predicted
    y[y == 0] = classes - 1
    logits[:, 1] = -12
    guess = logits.argmax(dim=1)
    scores = evaluate(logits, y, classes=names(classes))
    assert scores["acc"] == pytest.approx(sk.accuracy_score(y, guess))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert scores["balanced_acc"] == pytest.approx(sk.balanced_accuracy_score(y, guess))
        assert scores["f1_macro"] == pytest.approx(sk.f1_score(y, guess, average="macro"))
        recall = sk.recall_score(y, guess, labels=range(classes), average=None, zero_division=np.nan)
        precision = sk.precision_score(y, guess, labels=range(classes), average=None, zero_division=np.nan)
    np.testing.assert_allclose([scores[f"recall/c{i}"] for i in range(classes)], recall, equal_nan=True)
    np.testing.assert_allclose([scores[f"precision/c{i}"] for i in range(classes)], precision, equal_nan=True)
    assert math.isnan(scores["recall/c0"])
    assert math.isnan(scores["precision/c1"])
    assert scores["nll"] == pytest.approx(sk.log_loss(y, logits.double().softmax(1), labels=range(classes)), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 7])
def test_agrees_with_torchmetrics_where_the_meaning_is_the_same(classes):
    from torchmetrics.functional import classification as library

    logits, y = sample(20 + classes, 200, classes)
    y[:40] = -1
    ours = confusion(logits, y, classes)
    assert torch.equal(ours, library.multiclass_confusion_matrix(logits, y, classes, ignore_index=-1))
    f1 = library.multiclass_f1_score(logits, y, classes, average="none", ignore_index=-1)
    np.testing.assert_allclose(per_class(ours)[2].numpy(), f1.numpy(), atol=1e-6)


def test_names_and_types_are_those_of_metrics_json():
    logits, y = sample(3, 50, 3)
    scores = evaluate(logits, y, classes=["cat", "dog", "a/b"])
    assert set(scores) == SCALARS | {f"{kind}/{c}" for kind in ("recall", "precision") for c in ("cat", "dog", "a/b")}
    assert all(type(value) is float for value in scores.values())
    assert json.loads(json.dumps(scores)) == scores


def test_unlabelled_entries_are_ignored():
    logits, y = sample(4, 60, 4)
    wild = torch.cat([logits, torch.full((5, 4), 1e4)])
    assert evaluate(wild, torch.cat([y, torch.full((5,), -1)]), classes=names(4)) == evaluate(
        logits, y, classes=names(4)
    )


@pytest.mark.parametrize("classes", [1, 2, 50])
def test_one_sample_and_one_class_of_labels(classes):
    logits, _ = sample(5, 1, classes)
    guess = int(logits.argmax())
    scores = evaluate(logits, torch.tensor([guess]), classes=names(classes))
    assert (scores["acc"], scores["balanced_acc"], scores["f1_macro"]) == (1.0, 1.0, 1.0)
    assert all(math.isfinite(scores[name]) for name in SCALARS)


def test_no_label_at_all_is_nan_everywhere():
    scores = evaluate(sample(6, 3, 2)[0], torch.full((3,), -1), classes=names(2))
    assert all(math.isnan(value) for value in scores.values())


def test_pixels_are_entries():
    logits, y = sample(7, 60, 4)
    pixels = logits.reshape(3, 4, 5, 4).movedim(-1, 1)
    flat = evaluate(logits, y, classes=names(4))
    for name, value in evaluate(pixels, y.reshape(3, 4, 5), classes=names(4)).items():
        assert value == pytest.approx(flat[name], abs=1e-12)


@pytest.mark.parametrize("temperature", [0.05, 3.0])
def test_temperature_moves_calibration_only(temperature):
    logits, y = sample(8, 200, 5)
    plain, scaled = (evaluate(logits, y, classes=names(5), temperature=t) for t in (1.0, temperature))
    same = {"acc", "balanced_acc", "f1_macro"}
    assert all(plain[k] == scaled[k] for k in plain if k in same or "/" in k)
    assert all(plain[k] != scaled[k] for k in SCALARS - same)
    divided = evaluate(logits.double() / temperature, y, classes=names(5))
    assert scaled == pytest.approx(divided)


def test_hostile_logits_stay_finite():
    y = torch.tensor([0, 1, 0])
    scores = evaluate(torch.tensor([[1e30, -1e30], [1e30, -1e30], [0.0, 0.0]]), y, classes=names(2))
    assert all(math.isfinite(scores[name]) for name in SCALARS)
    assert scores["nll"] == pytest.approx((0 - math.log(1e-12) + math.log(2)) / 3)


def test_rows_of_the_confusion_matrix_are_labels():
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    assert confusion(logits, torch.tensor([0, 1, -1, 1]), 2).tolist() == [[0, 1], [1, 1]]


def test_says_what_does_not_fit():
    logits, y = sample(9, 6, 3)
    with pytest.raises(UsageError, match=r"logits of shape \(6, 3\) do not fit 2 class names: expected \(N, 2, \*S\)"):
        evaluate(logits, y, classes=names(2))
    with pytest.raises(UsageError, match=r"labels of shape \(5,\) do not fit"):
        evaluate(logits, y[:5], classes=names(3))
    with pytest.raises(UsageError, match="label 7 found where there are 3 classes"):
        evaluate(logits, torch.full((6,), 7), classes=names(3))
    with pytest.raises(UsageError, match="temperature=0: expected a positive number"):
        evaluate(logits, y, classes=names(3), temperature=0)
