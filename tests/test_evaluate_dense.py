"""The stream of images scores what all their pixels score at once, on any number of ranks."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from sfumato import distributed
from sfumato.errors import UsageError
from sfumato.evaluate import evaluate
from sfumato.evaluate_dense import DenseScores
from sfumato.functional import calibration
from sfumato.posthoc.temperature import fit_temperature

NAMES = ["sky", "road", "pole", "never"]
SCALARS = ["miou", "acc", "balanced_acc", "boundary_iou", "nll", "brier", "ece"]


def sample(n: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Blobs, predicted with noise; a void border; the last class is neither labeled nor predicted."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.nn.functional.interpolate(torch.randn(n, 4, 5, 6, generator=draw), (20, 24), mode="bilinear")
    clean[:, 3] = -9
    labels = clean.argmax(dim=1).to(torch.uint8)
    labels[:, :2] = 255
    return 2 * clean + torch.randn(clean.shape, generator=draw) * (torch.arange(4) < 3).view(4, 1, 1), labels


def scored(*batches: tuple[torch.Tensor, ...], **options) -> DenseScores:
    scores = DenseScores(NAMES, **options)
    for batch in batches:
        scores.observe(*batch)
    return scores


def test_names_and_types():
    found = scored(sample()).result()
    assert list(found) == [*SCALARS, *(f"{kind}/{name}" for kind in ("iou", "recall") for name in NAMES)]
    assert all(type(value) is float for value in found.values())
    json.dumps(found)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 2.5])
def test_pixels_are_entries_of_evaluate(temperature):
    logits, labels = sample()
    known = labels != 255
    flat = evaluate(logits.movedim(1, -1)[known], labels[known].long(), classes=NAMES, bins=10, temperature=temperature)
    scores = scored((logits, labels), bins=10, temperature=temperature)
    found = scores.calibrated()
    for name in ("acc", "balanced_acc", "nll", "brier", "ece", *(f"recall/{name}" for name in NAMES)):
        assert found[name] == pytest.approx(flat[name], abs=1e-12, nan_ok=True), name
    moved = {"nll", "brier", "ece"}
    plain = scores.result()
    same = {name: value for name, value in plain.items() if name not in moved}
    assert {name: value for name, value in found.items() if name not in moved} == pytest.approx(
        same, nan_ok=True, abs=0
    )
    assert all((found[name] == plain[name]) == (temperature == 1) for name in moved)


def test_agrees_with_torchmetrics():
    from torchmetrics.functional import classification as library

    logits, labels = sample()
    found = scored((logits, labels)).result()
    jaccard = library.multiclass_jaccard_index(logits, labels.long(), 4, ignore_index=255, average="none")
    assert [found[f"iou/{name}"] for name in NAMES[:3]] == pytest.approx(jaccard[:3].tolist(), abs=1e-6)
    assert found["miou"] == pytest.approx(float(jaccard[:3].mean()), abs=1e-6)
    ece = library.multiclass_calibration_error(logits.softmax(dim=1), labels.long(), 4, n_bins=15, ignore_index=255)
    assert found["ece"] == pytest.approx(float(ece), abs=1e-5)


def test_classes_that_are_absent():
    scores = scored(sample())
    assert math.isnan(scores.result()["iou/never"])
    found = scores.result(absent="zero")
    assert found["iou/never"] == 0
    assert found["miou"] == pytest.approx(0.75 * scores.result()["miou"])
    assert found["boundary_iou"] == pytest.approx(0.75 * scores.result()["boundary_iou"])
    assert math.isnan(found["recall/never"])


def test_void_pixels_count_nowhere():
    logits, labels = sample()
    wild = logits.clone()
    wild.movedim(1, -1)[labels == 255] = torch.tensor([0.0, 0.0, 90.0, 0.0])
    one, other = scored((logits, labels)).result(), scored((wild, labels.long().where(labels != 255, -1))).result()
    # predicted contours reach out of the void: only the bands may notice
    assert {k: v for k, v in one.items() if k != "boundary_iou"} == pytest.approx(
        {k: v for k, v in other.items() if k != "boundary_iou"}, nan_ok=True, abs=1e-12
    )


def test_batches_and_sizes_may_differ():
    logits, labels = sample()
    whole = scored((logits, labels)).result()
    singly = scored(*zip(logits.split([1, 4, 2]), labels.split([1, 4, 2]), strict=True))
    assert singly.result() == pytest.approx(whole, nan_ok=True, abs=1e-12)
    mixed = scored((logits, labels), (logits[:, :, :9, :11], labels[:, :9, :11]))
    assert mixed.per_image.counts.shape == (14, 4, 4)


def test_nothing_observed_or_all_void_is_nan():
    logits, labels = sample()
    for scores in (DenseScores(NAMES), scored((logits, torch.full_like(labels, 255)))):
        found = scores.result()
        assert all(math.isnan(value) for value in found.values())
        assert len(scores.held_out.y) == 0
    assert DenseScores(NAMES).per_image.counts.shape == (0, 4, 4)


def test_one_class_and_two():
    for classes in (1, 2):
        labels = torch.full((1, 6, 6), classes - 1)
        scores = DenseScores(NAMES[:classes])
        scores.observe(torch.randn(1, classes, 6, 6) + 9 * torch.eye(classes)[-1].view(1, -1, 1, 1), labels)
        assert scores.result()["miou"] == 1.0


def test_matrices_of_the_images_in_the_order_of_their_numbers():
    logits, labels = sample()
    images = torch.tensor([40, 3, 12, 0, 7, 99, 5])
    found = scored((logits[:3], labels[:3], images[:3]), (logits[3:], labels[3:], images[3:])).per_image
    assert found.images.tolist() == sorted(images.tolist())
    for image, counts in zip(found.images, found.counts, strict=True):
        i = int((images == image).nonzero())
        known = labels[i] != 255
        pairs = labels[i].long()[known] * 4 + logits[i].argmax(dim=0)[known]
        assert np.array_equal(counts.numpy().ravel(), np.bincount(pairs, minlength=16))


def test_sample_fits_nearly_the_temperature_of_all_pixels():
    logits, labels = sample(n=40)
    of_all = fit_temperature(logits, labels.long().where(labels != 255, -1))
    held = scored((logits, labels), pixels=200).held_out
    assert held.logits.shape == (40 * 200, 4)
    assert fit_temperature(held.logits, held.y) == pytest.approx(of_all, rel=0.03)


def test_memory_does_not_grow_by_the_pixels():
    scores = DenseScores(NAMES, pixels=50)
    logits, labels = sample(n=1)
    for i in range(20):
        scores.observe(logits, labels, torch.tensor([i]))
    held = sum(t.numel() for t in (*scores._counts, *scores._images, *scores._sample._logits, *scores._sample._labels))
    assert held == 20 * (16 + 1 + 50 * (4 + 1))


def test_reading_changes_nothing():
    logits, labels = sample()
    scores = scored((logits[:3], labels[:3]))
    first = scores.result()
    _ = scores.per_image, scores.held_out
    assert scores.result() == pytest.approx(first, nan_ok=True, abs=0)
    scores.observe(logits[3:], labels[3:])
    assert scores.result() == pytest.approx(scored((logits, labels)).result(), nan_ok=True, abs=1e-12)


def test_reliability_table():
    logits, labels = sample()
    table = scored((logits, labels)).bins.table
    known = labels != 255
    p = torch.softmax(logits.double(), dim=1).movedim(1, -1)[known]
    reference = calibration.reliability(p, labels[known].long())
    torch.testing.assert_close(table.count, reference.count)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_an_accelerator_scores_the_same():
    logits, labels = sample()
    here, there = scored((logits, labels)), scored((logits.cuda(), labels.cuda()), device="cuda")
    assert there.result() == pytest.approx(here.result(), nan_ok=True, abs=1e-12)
    assert torch.equal(there.per_image.counts.cpu(), here.per_image.counts)
    assert torch.equal(there.held_out.logits.cpu(), here.held_out.logits)


def shard(shares: list[int]) -> tuple:
    """This rank's images; what all read."""
    logits, labels = sample()
    rows = torch.arange(7).split(shares)[distributed.rank()]
    scores = DenseScores(NAMES, temperature=2.0, pixels=60)
    for row in rows:
        scores.observe(logits[row : row + 1], labels[row : row + 1], row[None])
    held, matrices = scores.held_out, scores.per_image
    return scores.result(), scores.calibrated(), matrices.images, matrices.counts, held.logits, held.y


@pytest.mark.parametrize("shares", [[4, 3], [6, 1], [0, 7]])
def test_two_ranks_with_uneven_shards_give_the_scores_of_one(two_ranks, shares):
    logits, labels = sample()
    alone = scored((logits, labels), temperature=2.0, pixels=60)
    for result, calibrated, images, counts, z, y in two_ranks.call(shard, shares):
        assert result == pytest.approx(alone.result(), nan_ok=True, abs=1e-12)
        assert calibrated == pytest.approx(alone.calibrated(), nan_ok=True, abs=1e-12)
        assert torch.equal(images, torch.arange(7))
        assert torch.equal(counts, alone.per_image.counts)
        assert torch.equal(z, alone.held_out.logits)
        assert torch.equal(y, alone.held_out.y)


def padded_shard() -> list[str]:
    """As a sampler does that fills up: 7 images become 8 on two ranks."""
    logits, labels = sample()
    scores, said = DenseScores(NAMES), []
    for row in torch.arange(8)[distributed.rank() :: 2] % 7:
        scores.observe(logits[row : row + 1], labels[row : row + 1], row[None])
    for read in (scores.result, lambda: scores.per_image, lambda: scores.observe(logits, labels)):
        try:
            read()
        except UsageError as error:
            said.append(str(error))
    return said


def test_an_image_on_two_ranks_is_not_counted_twice_in_silence(two_ranks):
    for said in two_ranks.call(padded_shard):
        assert len(said) == 3
        assert said[0] == said[1]
        assert said[0].startswith("image 0 was observed 2 times and would count as often: give each image to one rank")
        assert said[2] == "images=None on several ranks: pass the number of each image, (n,) int64."


def test_says_what_does_not_fit():
    logits, labels = sample()
    with pytest.raises(UsageError, match=r"shape \(7, 4, 20, 24\) do not fit 3 class names: expected \(n, 3, H, W\)"):
        DenseScores(NAMES[:3]).observe(logits, labels)
    with pytest.raises(UsageError, match=r"labels of shape \(7, 20, 23\) do not fit"):
        scored((logits, labels[:, :, 1:]))
    with pytest.raises(UsageError, match="label 9 found where there are 4 classes, 0 to 3"):
        scored((logits, labels.where(labels != 1, 9)))
    with pytest.raises(UsageError, match=r"images of shape \(3,\) do not fit 7 images: expected \(7,\)"):
        scored((logits, labels, torch.arange(3)))
    with pytest.raises(UsageError, match="temperature=0: expected a positive number"):
        DenseScores(NAMES, temperature=0)
    with pytest.raises(UsageError, match="needs a temperature"):
        scored((logits, labels)).calibrated()
    with pytest.raises(UsageError, match="expected one of nan, zero"):
        scored((logits, labels)).result(absent="none")
