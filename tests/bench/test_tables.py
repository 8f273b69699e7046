"""Tables of runs, each figure against numpy and scipy, and which runs are taken for seeds of the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from sfumato.bench.formats import FORMATS, as_csv, full, markdown, of_classes, short
from sfumato.bench.runs import find_runs
from sfumato.bench.table import Block, tables
from sfumato.errors import DataError, UsageError
from tests.bench.fake_runs import fake_run

MINE, THEIRS = (0.9, 0.8, 0.85), (0.7, 0.75, 0.72)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three seeds of two methods on 40 labels, and one of two on 250."""
    for seed, (mine, theirs) in enumerate(zip(MINE, THEIRS, strict=True)):
        fake_run(tmp_path / "b" / f"seed-{seed}", "method=fixmatch", "labels=40", seed=seed, acc=mine)
        fake_run(tmp_path / "a" / f"seed-{seed}", "method=supervised_strong", "labels=40", seed=seed, acc=theirs)
    fake_run(tmp_path / "c", "method=fixmatch", "labels=250", seed=1, acc=0.95)
    fake_run(tmp_path / "d", "method=supervised_strong", "labels=250", seed=1, acc=0.9)
    return tmp_path


def cells(block: Block) -> dict[str, list[str]]:
    return {row[0]: row for row in full(block).rows}


def test_every_figure_of_a_row(folder: Path) -> None:
    first, second = tables(folder).blocks
    assert (first.title, second.title) == ("digits, 40 labels, test images", "digits, 250 labels, test images")
    assert [row.method for row in first.rows] == ["supervised_strong", "fixmatch"]
    mine, theirs = np.array(MINE), np.array(THEIRS)
    row = first.rows[1]
    low, high = stats.t.interval(0.95, 2, loc=mine.mean(), scale=stats.sem(mine))
    test = stats.ttest_rel(mine, theirs)
    interval = test.confidence_interval(0.95)
    found = row.difference
    assert found is not None
    assert (found.n, found.higher, found.lower, found.p_sign) == (3, 3, 0, 0.25)
    assert found.p == pytest.approx(test.pvalue)
    assert full(first).columns == [
        "method", "n", "accuracy %", "95 % interval", "against supervised_strong", "95 % interval", "p", "above:below",
        "balanced %", "macro-F1 %", "ECE %", "ECE scaled %", "NLL", "seconds", "images seen",
    ]  # fmt: skip
    minus = lambda text: text.replace("-", "−")  # noqa: E731
    assert cells(first)["fixmatch"] == [
        "fixmatch", "3", f"{100 * mine.mean():.1f} ± {100 * mine.std(ddof=1):.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}", f"{100 * (mine - theirs).mean():+.1f}",
        minus(f"{100 * interval.low:+.1f} to {100 * interval.high:+.1f}"), f"{test.pvalue:.3f}", "3:0",
        "42.5 ± 2.5", "17.0 ± 1.0", "15.0 ± 5.0", "1.0 ± 0.0", "0.300 ± 0.100", "11",
        f"{10 * 4 + 8 * 8}",  # 10 steps of 4 labelled images, 8 of them with 8 others
    ]  # fmt: skip
    assert cells(first)["supervised_strong"][4:8] == ["–"] * 4
    assert cells(first)["supervised_strong"][-1] == "40"
    assert cells(second)["fixmatch"][:8] == ["fixmatch", "1", "95.0", "–", "+5.0", "–", "–", "1:0"]
    assert short(first).rows[1] == [cells(first)["fixmatch"][place] for place in (0, 1, 2, 4, 5, 6, 13)]


def test_missing_seeds_are_told_and_not_compared(folder: Path) -> None:
    (folder / "b" / "seed-1" / "metrics.json").unlink()
    fake_run(folder / "e" / "seed-0", "method=softmatch", "labels=40")
    fake_run(folder / "f", "method=flexmatch", "labels=40", seed=7, acc=0.5)
    (folder / "a" / "seed-2" / "metrics.json").unlink()
    found = cells(tables(folder).blocks[0])
    assert found["fixmatch"][1] == "2 of 3"
    assert found["fixmatch"][4:8] == ["+20.0 (n=1)", "–", "–", "1:0"]
    assert found["softmatch"][1:5] == ["0 of 1", "–", "–", "–"]
    assert found["flexmatch"][1:5] == ["1", "50.0", "–", "–"]  # no seed of the baseline's


def test_another_baseline_metric_or_split(folder: Path) -> None:
    block = tables(folder, against="fixmatch", metric="ece").blocks[0]
    assert [row.method for row in block.rows] == ["fixmatch", "supervised_strong"]
    ece = full(block).rows[1]
    assert ece[2] == "27.7 ± 2.5"
    assert ece[4] == "+12.7"
    assert full(block).columns[8] == "accuracy %"
    assert full(tables(folder, against="none").blocks[0]).columns[4] == "balanced %"
    val = tables(folder, split="val").blocks[0]
    assert val.title.endswith("validation images")
    assert cells(val)["fixmatch"][2] == "75.0 ± 5.0"
    with pytest.raises(UsageError, match=r"--metric eec: no run has it. Did you mean 'ece'\?"):
        tables(folder, metric="eec")
    with pytest.raises(UsageError, match=r"--against fixmach: no run is of this method. Did you mean 'fixmatch'\?"):
        tables(folder, against="fixmach")


def test_without_a_test_split_validation_images_are_shown(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "method=fixmatch", acc=0.9, test={}, test_calibrated={})
    (block,) = tables(tmp_path).blocks
    assert block.title == "digits, all labels, validation images"
    assert cells(block)["fixmatch"][2] == "80.0"


# Which runs belong together


def test_runs_of_one_training_with_its_baseline(tmp_path: Path) -> None:
    """As `sfumato train --seeds` leaves them; folders inside a run that hold trainings of its own are no runs."""
    fake_run(tmp_path / "seeds", "method=st", "unlabeled_start=0", "seeds=0:2")
    for seed in (0, 1):
        own = tmp_path / "seeds" / f"seed-{seed}"
        earlier = {"method": "supervised_strong", "images": {"labeled": 40, "unlabeled": 100}, "seconds": 3.0}
        fake_run(own, "method=st", "unlabeled_start=0", seed=seed, acc=0.9, rounds=[earlier])
        fake_run(own / "baseline", "method=supervised_strong", seed=seed, acc=0.8)
        fake_run(own / "rounds" / "1", "method=supervised_strong", seed=seed, acc=0.1)
    found = find_runs(tmp_path)
    assert [run.folder.relative_to(tmp_path).as_posix() for run in found] == [
        "seeds/seed-0/baseline", "seeds/seed-0", "seeds/seed-1/baseline", "seeds/seed-1",
    ]  # fmt: skip
    (block,) = tables(tmp_path).blocks
    assert cells(block)["st"][:3] == ["st", "2", "90.0 ± 0.0"]
    assert cells(block)["st"][-1] == str(2 * 10 * 4 + 10 * 8)  # its labels are there from the first step


def test_other_settings_are_told_apart(folder: Path) -> None:
    fake_run(folder / "g", "method=fixmatch", "threshold=0.5", "labels=40", seed=0, acc=0.6)
    fake_run(folder / "h", "method=softmatch", "labels=40", "val=0.1", seed=0, acc=0.6)
    names = {(block.data, row.method) for block in tables(folder).blocks for row in block.rows if block.labels == "40"}
    assert names == {
        ("digits (val=0.2)", "supervised_strong"), ("digits (val=0.2)", "fixmatch (threshold=0.95)"),
        ("digits (val=0.2)", "fixmatch (threshold=0.5)"), ("digits (val=0.1)", "softmatch"),
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"--against fixmatch: there are 2 of it. Write which: fixmatch \(threshold"):
        tables(folder, against="fixmatch")
    block = next(one for one in tables(folder, against="fixmatch (threshold=0.5)").blocks if len(one.rows) == 3)
    assert block.rows[0].method == "fixmatch (threshold=0.5)"


def test_names_and_order_of_a_bench(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text(
        json.dumps({"baseline": "plain", "methods": ["plain", "z", "a"], "data": ["two", "one"], "labels": ["9", "10"]})
    )
    for data in ("one", "two"):
        for labels in ("10", "9"):
            for method, option in (("a", 0.5), ("z", 0.6), ("plain", 0.7)):
                cell = {"data": data, "labels": labels, "method": method}
                fake_run(
                    tmp_path / data / labels / method, f"threshold={option}", "method=fixmatch", acc=option, cell=cell
                )
    found = tables(tmp_path)
    assert [(block.data, block.labels) for block in found.blocks] == [
        ("two", "9"), ("two", "10"), ("one", "9"), ("one", "10"),
    ]  # fmt: skip
    assert [row.method for row in found.blocks[0].rows] == ["plain", "z", "a"]
    assert found.blocks[0].against == "plain"
    part = tables(tmp_path / "one" / "10")  # inside of the bench it is still that bench
    assert [row.method for row in part.blocks[0].rows] == ["plain", "z", "a"]


def test_other_images_are_not_compared(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "method=supervised_strong", acc=0.8)
    fake_run(tmp_path / "b", "method=fixmatch", acc=0.9, splits="others")
    found = tables(tmp_path)
    assert cells(found.blocks[0])["fixmatch"][4] == "–"
    assert found.notes == [f"{tmp_path}/b and {tmp_path}/a had other images, so they are not compared."]
    assert f"Note: {found.notes[0]}" in markdown(found)


def test_trainings_of_different_lengths_are_told(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "method=supervised_strong", acc=0.8)
    fake_run(tmp_path / "b", "method=fixmatch", acc=0.9)
    assert tables(tmp_path).notes == []
    fake_run(tmp_path / "c", "method=freematch", acc=0.9, steps=2000)
    (note,) = tables(tmp_path).notes
    assert note.endswith("test images: trainings of 10 and 2,000 steps stand side by side.")


def test_a_run_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "method=fixmatch")
    fake_run(tmp_path / "b", "method=fixmatch", acc=0.9)
    fake_run(tmp_path / "c", "method=fixmatch", acc=0.9)
    found = tables(tmp_path)
    assert cells(found.blocks[0])["fixmatch"][1:3] == ["1", "90.0"]
    assert found.notes[-1] == f"{tmp_path}/b and {tmp_path}/c are the same run; the first one counts."


def test_folders_without_runs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder. Give one that holds runs"):
        tables(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no runs: no config.yaml"):
        tables(tmp_path)
    fake_run(tmp_path / "a", acc=0.5)
    (tmp_path / "a" / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics.json: not readable as JSON"):
        tables(tmp_path)


# How they are written


def test_each_class_has_its_recall(tmp_path: Path) -> None:
    fake_run(tmp_path / "a" / "0", "method=fixmatch", acc=0.8, recall=(0.5, None))
    fake_run(tmp_path / "a" / "1", "method=fixmatch", seed=1, acc=0.8, recall=(0.7, None))
    fake_run(tmp_path / "b", "method=supervised_strong", acc=0.8, recall=(1.0, 0.25))
    grid = of_classes(tables(tmp_path).blocks[0])
    assert grid.title == "digits, all labels, test images: recall % of each class"
    assert grid.columns == ["class", "supervised_strong", "fixmatch"]
    assert grid.rows == [["0", "100.0", "60.0 ± 14.1"], ["1", "25.0", "–"]]
    assert "recall %" not in markdown(tables(tmp_path))
    assert "| 0 | 100.0 | 60.0 ± 14.1 |" in markdown(tables(tmp_path), per_class=True)


def test_masks_have_mean_iou_and_that_of_each_class(tmp_path: Path) -> None:
    test = {"miou": 0.5, "miou_rare": 0.3, "boundary_iou": 0.2, "acc": 0.9, "ece": 0.1, "nll": 0.5, "iou/road": 0.75}
    fake_run(tmp_path / "a", "method=fixmatch", "data.source=shapes", acc=0.0, criterion="miou", test=test)
    (block,) = tables(tmp_path).blocks
    titles = dict(zip(full(block).columns, full(block).rows[0], strict=True))
    assert (titles["mIoU %"], titles["mIoU, rare %"], titles["boundary IoU %"]) == ("50.0", "30.0", "20.0")
    assert of_classes(block).rows == [["road", "75.0"]]


def test_csv_and_json_hold_every_figure(folder: Path) -> None:
    found = tables(folder)
    lines = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(line["labels"], line["method"]) for line in lines] == [
        ("40", "supervised_strong"), ("40", "fixmatch"), ("250", "supervised_strong"), ("250", "fixmatch"),
    ]  # fmt: skip
    line = lines[1]
    assert float(line["mean"]) == np.mean(MINE)
    assert float(line["sd"]) == pytest.approx(np.std(MINE, ddof=1))
    assert float(line["p"]) == pytest.approx(stats.ttest_rel(MINE, THEIRS).pvalue)
    assert (line["n"], line["seeds"], line["against"], line["pairs"]) == ("3", "0 1 2", "supervised_strong", "3")
    assert (float(line["seconds"]), float(line["images"]), float(line["ece_scaled"])) == (11, 104, 0.01)
    assert (lines[0]["difference"], lines[3]["p"]) == ("", "")
    rows = json.loads(FORMATS["json"](found))["rows"]
    assert rows[1]["difference"] == pytest.approx(np.mean(MINE) - np.mean(THEIRS))
    assert rows[3]["p"] is None


def test_latex_is_escaped(tmp_path: Path) -> None:
    fake_run(tmp_path / "a", "method=supervised_strong", acc=0.8, collapse=True)
    fake_run(tmp_path / "b", "method=fixmatch", acc=0.7)
    text = FORMATS["latex"](tables(tmp_path))
    assert r"supervised\_strong (collapsed) & 1 & 80.0 & -- & -- &" in text
    assert r"fixmatch & 1 & 70.0 & -- & $-$10.0 & -- & -- & 0:1 &" in text
    assert r"method & n & accuracy \% & 95 \% interval & against supervised\_strong" in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in body} == {14}
    assert text.count(r"\begin{tabular}{lrrrrrrrrrrrrrr}") == text.count(r"\end{tabular}") == 1


def test_an_interval_of_shares_ends_at_0_and_100_percent(tmp_path: Path) -> None:
    for seed, acc in enumerate((0.99, 0.9)):
        fake_run(tmp_path / f"seed-{seed}", "method=fixmatch", seed=seed, acc=acc)
    (block,) = tables(tmp_path).blocks
    assert full(block).rows[0][3] == "37.3 to 100.0"
    assert block.rows[0].means["acc"].high > 1  # in CSV and JSON as it is
    (block,) = tables(tmp_path, metric="ece").blocks
    assert full(block).rows[0][3] == "0.0 to 62.7"
    (block,) = tables(tmp_path, metric="nll").blocks
    assert full(block).rows[0][3].startswith("−")  # no share


def test_without_a_temperature_there_is_no_scaled_error(tmp_path: Path) -> None:
    images = {"labeled": 40, "unlabeled": 100, "val": 0, "test": 10}
    fake_run(tmp_path / "a", "method=fixmatch", acc=0.9, images=images)
    fake_run(tmp_path / "b", "method=supervised", acc=0.9)
    (block,) = tables(tmp_path).blocks
    place = full(block).columns.index("ECE scaled %")
    assert {row[0]: row[place] for row in full(block).rows} == {"fixmatch": "–", "supervised": "1.0"}
