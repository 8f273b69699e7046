"""What is not in a run folder: told on the page where it may be missing, an error that names the file where not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfumato.errors import DataError
from sfumato.report import write_report
from tests.report import fake_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run.write_pair(tmp_path / "run", n=200)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def said(folder: Path) -> str:
    text = write_report(folder).read_text()
    assert text.count("<section") >= 8
    return re.sub(r"\s+", " ", text)


def test_labels_only_without_baseline_and_verdict(tmp_path: Path) -> None:
    text = said(fake_run.write_run(tmp_path / "run", fake_run.SUPERVISED, n=200))
    assert "There is no verdict: no baseline was trained." in text
    assert "supervised logged no pseudo-labels by class" in text
    assert "<h1>supervised: " in text
    assert "The labelled loss of supervised." in text


def test_verdict_without_interval(run: Path) -> None:
    change(run / "verdict.json", low=None, high=None, difference=float("nan"), n=0, answer="cannot tell")
    text = said(run)
    assert 'class="interval"' not in text
    assert "Too early to tell" in text


def test_verdict_of_validation_images(run: Path) -> None:
    change(run / "verdict.json", n=300)
    assert "300 test images" in said(run)
    change(run / "verdict.json", split="val")
    assert "300 validation images" in said(run)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("metrics.jsonl", "No curves: the run folder holds no metrics.jsonl"),
        ("predictions/test.npz", "No confusion matrix: the run folder holds no predictions/test.npz"),
        ("config.yaml", "No config.yaml in the run folder."),
        ("splits.json", '<td data-column="Labels">–</td>'),
        ("environment.json", "To run it again:"),
        ("verdict.json", "There is no verdict: the run holds no verdict.json."),
    ],
)
def test_one_file_is_missing(run: Path, name: str, told: str) -> None:
    for folder in (run, run / "baseline"):
        (folder / name).unlink(missing_ok=True)
    assert told in said(run)


def test_only_metrics_json(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text("{}")
    text = said(folder)
    assert "<h1>run, not yet tested.</h1>" in text
    assert text.count('class="missing"') == 6


def test_null_values(run: Path) -> None:
    nothing = dict.fromkeys(("test", "test_calibrated", "val", "best", "temperature", "seconds", "steps", "collapse"))
    change(run / "metrics.json", **nothing)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    empty = [dict.fromkeys(line) | {"step": line["step"]} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in empty))
    text = said(run)
    assert "As trained: ECE" in text
    assert "After temperature" not in text


def test_values_that_are_no_numbers(run: Path) -> None:
    test = json.loads((run / "metrics.json").read_text())["test"]
    change(run / "metrics.json", test=test | {"nll": float("inf"), "ece": "?"}, best={"step": 1, "test": {}})
    assert '<td data-column="NLL">–</td>' in said(run)


def test_one_evaluation(tmp_path: Path) -> None:
    folder = fake_run.write_run(tmp_path / "run", fake_run.FIXMATCH, steps=100, n=100)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[-2:]))
    text = said(folder)
    assert "Validation accuracy" in text
    assert "Where the pseudo-labels go" in text


def test_losses_of_zero_are_left_out(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    flat = [line | ({"train/loss_unsup": 0.0} if "train/loss_sup" in line else {}) for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in flat))
    assert "The labelled loss of fixmatch, and the labelled loss of supervised_strong." in said(run)


def test_predictions_that_are_not_finite(run: Path) -> None:
    logits = np.full((50, 10), np.nan, np.float32)
    np.savez(run / "predictions" / "test.npz", logits=logits, labels=np.arange(50) % 10)
    assert 'class="matrix' in said(run)


def test_no_mistakes(run: Path) -> None:
    labels = np.arange(50) % 10
    np.savez(run / "predictions" / "test.npz", logits=9 * np.eye(10, dtype=np.float32)[labels], labels=labels)
    assert "None: every test image is right." in said(run)


def test_unlabelled_and_absent_test_images(run: Path) -> None:
    labels = np.array([0, 0, 1, -1, -1])
    np.savez(run / "predictions" / "test.npz", logits=np.eye(10, dtype=np.float32)[[0, 1, 1, 5, 6]], labels=labels)
    text = said(run)
    assert "–</td>" in text  # recall of the classes that are absent
    np.savez(run / "predictions" / "test.npz", logits=np.zeros((0, 10), np.float32), labels=np.zeros(0, np.int64))
    assert "No confusion matrix" in said(run)


def test_names_only_without_images(run: Path) -> None:
    text = said(run)
    assert "Names only: the images were not at hand" in text
    assert "<img" not in text
    assert "test/00" in text


def test_last_line_cut_short(run: Path) -> None:
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(whole + '{"step": 2025, "tra')
    assert "Validation accuracy" in said(run)


def test_seeds_that_reached_different_steps(tmp_path: Path) -> None:
    for seed, steps in ((0, 400), (1, 800), (10, 600)):
        fake_run.write_run(tmp_path / f"seed-{seed}", fake_run.FIXMATCH, seed=seed, steps=steps, n=100)
        fake_run.write_run(tmp_path / f"seed-{seed}" / "baseline", fake_run.STRONG, seed=seed, steps=steps, n=100)
    text = said(tmp_path)
    assert '<td data-column="Seeds">0, 1, 10</td>' in text
    assert "against supervised_strong" in text
    assert "--seeds" in text


def test_baseline_with_seeds_beside(tmp_path: Path) -> None:
    for seed in (0, 1):
        fake_run.write_run(tmp_path / f"seed-{seed}", fake_run.FIXMATCH, seed=seed, n=100)
        fake_run.write_run(tmp_path / "baseline" / f"seed-{seed}", fake_run.SUPERVISED, seed=seed, n=100)
    assert "fixmatch against supervised" in said(tmp_path)


def test_methods_of_one_seed_and_a_method_of_which_only_figures_are_left(tmp_path: Path) -> None:
    for fake in (fake_run.STRONG, fake_run.FIXMATCH, fake_run.FLAT):
        fake_run.write_run(tmp_path / fake.method, fake, n=100)
    rows = [{"method": "gone", "score": [0.5, 0.6], "ece": [None, 0.1], "nll": [], "seconds": 3}]
    (tmp_path / "table.json").write_text(json.dumps({"rows": rows}))
    text = said(tmp_path)
    assert "55.0 ± 7.1 %" in text
    assert "uncertainty_weighted_flat against supervised_strong" in text  # the best on validation


def test_only_a_table(tmp_path: Path) -> None:
    (tmp_path / "table.json").write_text(json.dumps({"rows": [{"method": "fixmatch", "score": [0.9]}]}))
    assert "<h1>fixmatch: 90.0" in said(tmp_path)


def test_method_against_itself(tmp_path: Path) -> None:
    fake_run.write_run(tmp_path / "run", fake_run.STRONG, n=100)
    fake_run.write_run(tmp_path / "run" / "baseline", fake_run.STRONG, seed=1, n=100)
    assert "supervised_strong (baseline)" in said(tmp_path / "run")


def write(name: str, text: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).write_text(text)

    return make


def save(**arrays: np.ndarray) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        np.savez(folder / "predictions" / "test.npz", **arrays)  # type: ignore[arg-type]

    return make


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


TEN, NONE = np.zeros((3, 10), np.float32), np.zeros(3, np.int64)
BROKEN = {
    "no metrics": (remove("metrics.json"), r"run/metrics\.json: missing\. `sfumato train --resume .*run` ends the run"),
    "no metrics of the baseline": (remove("baseline/metrics.json"), r"baseline/metrics\.json: missing"),
    "cut metrics": (write("metrics.json", '{"method": '), r"run/metrics\.json: not readable as JSON .* --resume"),
    "metrics that are a list": (write("metrics.json", "[]"), "expected a JSON object, found list"),
    "broken line": (write("metrics.jsonl", '{"step": 1}\n{"st\n{"step": 2}\n'), r"metrics\.jsonl, line 2: not a JSON"),
    "config": (write("config.yaml", "a: [1\nb: }"), r"config\.yaml, line 2: not readable as YAML"),
    "splits": (write("splits.json", "nope"), r"splits\.json: not readable as JSON"),
    "verdict": (write("verdict.json", "{}"), r"verdict\.json: no 'answer'\. Expected helps, no difference"),
    "not npz": (write("predictions/test.npz", "zip?"), r"test\.npz: not readable as npz .*`sfumato eval` writes it"),
    "no logits": (save(labels=NONE), r"test\.npz: holds no array 'logits'"),
    "shapes": (save(logits=TEN, labels=NONE[:2]), r"logits \(3, 10\) do not match labels \(2,\)"),
    "classes": (save(logits=TEN[:, :9], labels=NONE), "9 columns of logits, but metrics.json names 10 classes"),
    "label": (save(logits=TEN, labels=NONE + 10), "label 10 is beyond the 10 columns"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_named(run: Path, case: str) -> None:
    spoil, message = BROKEN[case]
    spoil(run)
    with pytest.raises(DataError, match=message):
        write_report(run)
    assert not (run / "report.html").exists()


def test_folder_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder\. Give the run folder that `sfumato train"):
        write_report(tmp_path / "nowhere")


def test_folder_that_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"not a run folder: metrics\.json is missing, and so are seed-0/"):
        write_report(tmp_path)


def test_a_folder_of_runs_further_down_is_for_a_table(run: Path, tmp_path: Path) -> None:
    deep = tmp_path / "bench" / "digits" / "labels-40" / "fixmatch" / "seed-0"
    shutil.copytree(run, deep)
    bench = tmp_path / "bench"
    with pytest.raises(DataError) as caught:
        write_report(bench)
    assert f"`sfumato table {bench}` compares them; a report is of one, such as {deep}." in str(caught.value)
