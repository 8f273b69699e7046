"""What a step does, and what it must not."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sfumato.batches import BatchMaker
from sfumato.errors import CollapseError, UsageError
from sfumato.methods.fixmatch import fixmatch
from sfumato.train import _Stopwatch, train
from sfumato.train_config import TrainConfig
from sfumato.types import ViewSpec
from tests.train.tiny import CONFIG, data, method, network, run


def weights(result: object) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in result.model.state_dict().items()}  # type: ignore[attr-defined]


def test_first_four_losses_are_pinned() -> None:
    result, _ = run("fixmatch", steps=4, log_every=1, unlabeled_start=0.0)
    losses = [record["train/loss_sup"] for record in result.history if "train/loss_sup" in record]
    assert losses == pytest.approx(PINNED, abs=2e-4)


def test_evaluating_often_changes_nothing_in_training() -> None:
    often, _ = run("softmatch", eval_every=1)
    seldom, _ = run("softmatch", eval_every=24)
    for key, value in weights(often).items():
        assert torch.equal(value, weights(seldom)[key]), key


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    first, again = weights(run("freematch", dropout=0.3)[0]), weights(run("freematch", dropout=0.3)[0])
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    given = data()
    other = train(method("freematch", given), network(dropout=0.3), given, CONFIG, seed=1, quiet=True)
    assert any(not torch.equal(value, first[key]) for key, value in weights(other).items())


def test_training_learns_and_reports() -> None:
    result, _ = run("fixmatch", steps=80, lr=0.1)
    assert result.val is not None
    assert result.val["acc"] > 0.6
    record = next(r for r in reversed(result.history) if "pl/coverage" in r)
    assert 0 < record["pl/coverage"] <= 1
    assert 0 <= record["pl/precision"] <= 1
    shares = [record[f"pl/coverage/{name}"] for name in data().table.classes]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert result.best_step is not None
    assert result.best_state is not None


def test_the_loop_tells_the_method_which_labels_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.functional.ohem.SURE", 0.0)  # a new network is sure of nothing
    losses = [
        next(record["train/loss_sup"] for record in run("fixmatch", steps=1, log_every=1, ohem=share)[0].history)
        for share in (None, 1.0, 0.1)
    ]
    assert losses[0] == losses[1] < losses[2]


def test_unlabeled_images_are_unused_before_their_start() -> None:
    def until(step: int) -> dict[str, torch.Tensor]:
        return weights(
            run("fixmatch", steps=10, unlabeled_start=step / 10, ema=0.0, warmup=0.0, schedule="constant")[0]
        )

    labels_only = weights(run("supervised", steps=10, ema=0.0, warmup=0.0, schedule="constant")[0])
    assert all(torch.equal(value, labels_only[key]) for key, value in until(10).items())
    assert any(not torch.equal(value, labels_only[key]) for key, value in until(2).items())


def test_a_loss_that_is_not_finite_stops_with_step_batch_and_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sfumato.train as loop

    broken_at = 13

    class Broken(loop.BatchMaker):
        def at(self, step: int, steps: int, *, labels_only_until: int = 0) -> list:  # type: ignore[type-arg]
            batches = super().at(step, steps, labels_only_until=labels_only_until)
            if step == broken_at:
                batches[0][0].labeled.x.fill_(float("nan"))
            return batches

    monkeypatch.setattr(loop, "BatchMaker", Broken)
    given = data()
    row = BatchMaker(given, ViewSpec(), 8, 2, 0, torch.device("cpu")).drawn(broken_at).labeled[0]
    with pytest.raises(CollapseError) as error:
        run("fixmatch", folder=tmp_path)
    message = str(error.value)
    assert f"not finite at step {broken_at}" in message
    assert given.names[row] in message
    assert "step-00000010" in message
    assert "Lower the learning rate" in message


def test_micro_batches_are_slices_of_the_same_global_batch() -> None:
    whole, cut = (BatchMaker(data(), fixmatch().views, 8, 2, 0, torch.device("cpu"), accumulate=n) for n in (1, 4))
    (one, _), four = whole.at(3, 9)[0], [batch for batch, _ in cut.at(3, 9)]
    assert torch.equal(one.labeled.x, torch.cat([b.labeled.x for b in four]))
    assert torch.equal(one.unlabeled.weak, torch.cat([b.unlabeled.weak for b in four]))  # type: ignore[union-attr]
    assert torch.equal(one.unlabeled.strong[0], torch.cat([b.unlabeled.strong[0] for b in four]))  # type: ignore[union-attr]
    assert not torch.equal(one.labeled.x, whole.at(4, 9)[0][0].labeled.x)
    draws = [b.unlabeled.draw("x", 2) for b in (one, *four)]  # type: ignore[union-attr]
    assert torch.equal(draws[0], torch.cat(draws[1:]))
    assert draws[0].unique().numel() == draws[0].numel()


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    one = weights(run("supervised", steps=3, norm="group", ema=0.0)[0])
    four = weights(run("supervised", steps=3, norm="group", ema=0.0, accumulate=4)[0])
    for key, value in one.items():
        torch.testing.assert_close(four[key], value, atol=1e-5, rtol=1e-4)


def test_a_method_never_sees_the_labels_of_unlabeled_samples() -> None:
    batch, _ = BatchMaker(data(), fixmatch().views, 8, 2, 0, torch.device("cpu")).at(0, 1)[0]
    assert batch.unlabeled is not None
    assert not {"y", "label", "labels", "target"} & set(batch.unlabeled.__dataclass_fields__)


def test_training_labels_do_not_count_as_hidden_ones() -> None:
    """Their pseudo-labels agree because they are learnt; telemetry would praise a method that is wrong on the rest."""
    given = data()
    maker = BatchMaker(given, fixmatch().views, 8, 20, 0, torch.device("cpu"))
    batch, truth = maker.at(0, 1)[0]
    assert batch.unlabeled is not None
    assert truth is not None
    rows = given.splits.unlabeled[batch.unlabeled.index.numpy()]
    trained_on = np.isin(rows, given.splits.labeled)
    assert trained_on.any()
    assert (truth.numpy()[trained_on] == -1).all()
    assert (truth.numpy()[~trained_on] == given.table.labels[rows][~trained_on]).all()


def test_rows_are_predicted_in_their_order() -> None:
    given = data()
    model = network()
    rows = given.splits.val
    logits, labels = given.predict(model, rows, torch.device("cpu"))
    backwards, _ = given.predict(model, rows[::-1].copy(), torch.device("cpu"))
    torch.testing.assert_close(logits, backwards.flip(0))
    assert np.array_equal(labels.numpy(), given.table.labels[rows])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ({"warmup": 1.5}, "warmup=1.5: expected a share between 0 and 1"),
        ({"precision": "fp8"}, "precision='fp8'.*fp32, bf16, fp16"),
        ({"schedule": "cosine_hlaf"}, "Did you mean 'cosine_half'"),
    ],
)
def test_bad_settings_are_named(change: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        TrainConfig(**change)  # type: ignore[arg-type]


def test_a_batch_that_does_not_divide_is_named() -> None:
    with pytest.raises(UsageError, match=r"batch_size=8.*multiple of ranks x accumulate = 3"):
        run("fixmatch", accumulate=3)


def test_bfloat16_trains() -> None:
    result, chosen = run("freematch", steps=6, precision="bf16")
    assert result.val is not None
    assert all(v.dtype == torch.float32 for v in chosen.state_dict().values() if v.is_floating_point())


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_predictions_after_training_in_bfloat16_are_those_of_the_kept_weights(ema: float) -> None:
    """In full precision, whether the student or its average is kept: a later evaluation must find the same."""
    result, _ = run("supervised", steps=6, precision="bf16", ema=ema)
    reread = network()
    reread.load_state_dict(result.model.state_dict())
    rows = data().splits.val
    logits = [data().predict(model, rows, torch.device("cpu"))[0] for model in (result.model, reread)]
    torch.testing.assert_close(*logits, atol=1e-5, rtol=0)


def test_batches_asked_for_out_of_order_hold_their_own_images() -> None:
    maker, other = (BatchMaker(data(), fixmatch().views, 8, 2, 0, torch.device("cpu")) for _ in range(2))
    maker.at(0, 9)
    assert torch.equal(maker.at(5, 9)[0][0].labeled.x, other.at(5, 9)[0][0].labeled.x)
    assert torch.equal(maker.at(6, 9)[0][0].labeled.x, other.at(6, 9)[0][0].labeled.x)


def test_speed_counts_the_images_that_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 steps of 8 labels only, then 8 steps of 24; after a resumption those since then."""
    seen: list[int] = []
    read = _Stopwatch.read
    monkeypatch.setattr(_Stopwatch, "read", lambda self: seen.append(self.images) or read(self))
    settings = {"steps": 12, "unlabeled_start": 1 / 3, "log_every": 4, "eval_every": 12, "save_every": 4, "keep": 9}
    run("fixmatch", folder=tmp_path, **settings)  # type: ignore[arg-type]
    assert seen == [32, 96, 96]
    seen.clear()
    shutil.rmtree(tmp_path / "checkpoints" / "step-00000012")
    run("fixmatch", folder=tmp_path, resume=True, **settings)  # type: ignore[arg-type]
    assert seen == [96]


def test_one_class_taking_all_is_told_without_a_validation_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels trained on say what share of a class was to be expected."""
    given = data()
    none = replace(given, splits=replace(given.splits, val=given.splits.val[:0]))
    one = torch.tensor([1.0] + [0.0] * 9)
    monkeypatch.setattr("sfumato.telemetry.Telemetry.histogram", property(lambda self: one))
    chosen = method("fixmatch", none, threshold=0.0)
    result = train(chosen, network(), none, CONFIG, quiet=True)
    assert result.val is None
    assert result.collapse is not None
    assert "crowd into '0' (100 % of them, 10 % of the training labels)" in result.collapse["reason"]
    assert len(result.warnings) == 1


PINNED = [2.44275, 2.82156, 2.42921, 2.03018]


def test_patches_are_drawn_for_a_method_that_masks() -> None:
    given = data()
    spec = ViewSpec(strong=2, uncut=1, patches=True)
    whole, cut = (BatchMaker(given, spec, 8, 8, 0, torch.device("cpu"), accumulate=n) for n in (1, 2))
    patches = [maker.at(3, 9)[0][0].unlabeled.patches for maker in (whole, cut)]  # type: ignore[union-attr]
    assert patches[0].shape == (64, 8, 8)
    assert torch.equal(patches[0][:32], patches[1])
    assert 0.2 < patches[0].mean() < 0.5
    plain = BatchMaker(given, ViewSpec(), 8, 2, 0, torch.device("cpu")).at(3, 9)[0][0].unlabeled
    assert plain is not None
    assert plain.patches is None


@pytest.mark.parametrize("name", ["csl", "farcluss", "unimatch", "unimatch_v2", "augseg", "mean_teacher"])
def test_a_method_of_several_views_trains(name: str) -> None:
    result, _ = run(name, steps=6)
    assert all(value.isfinite().all() for value in weights(result).values())
