"""The labels to look at: what a page says of them, and a page without any."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.errors import DataError
from sfumato.report import write_report
from tests.report import fake_run

ROWS = [f"{rank},{rank}<b>.png,3,8,{rank / 10 - 2:.4f},0.9000" for rank in range(1, 16)]
COUNTS = {"labeled": [40 - place for place in range(10)], "unlabeled": [300] * 10, "val": [0] * 10, "test": [100] * 10}


def page(folder: Path, suspects: dict[str, object] | None, rows: list[str], **more: object) -> str:
    fake_run.write_run(folder, fake_run.SUPERVISED, n=200, steps=100)
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"suspects": suspects} | more))
    if rows:
        (folder / "suspects.csv").write_text("\n".join(["rank,file,label,suggested,margin,confidence", *rows]) + "\n")
    return write_report(folder).read_text()


def test_the_lowest_margins_are_shown_and_what_the_list_is_worth(tmp_path: Path) -> None:
    found = {"listed": 15, "labels": 400, "evaluations": 5, "precision": 0.8, "recall": 0.6}
    text = page(tmp_path / "run", found, ROWS, class_counts=COUNTS)
    assert '<a href="#labels">' in text
    section = text[text.index('id="labels"') : text.index('id="gallery"')]
    assert "Of 400 training labels, 15 contradict" in section
    assert "over its 5 evaluations" in section
    assert "80.0 % of the listed are, and 60.0 % of those are listed." in section.replace("\u202f", " ")
    assert section.count("<tr><td>") == 12
    assert "The first 12 of them; suspects.csv in the run folder lists all." in section
    assert section.index("1&lt;b&gt;.png") < section.index("12&lt;b&gt;.png")  # names are escaped
    assert "-1.90" in section
    head = text[text.index("By class, the weakest first") :]
    assert '<th scope="col">labels</th><th scope="col">unlabelled</th><th scope="col">images</th>' in head
    assert '<td class="n">40</td><td class="n">300</td>' in head


def test_nothing_to_doubt_and_nothing_known(tmp_path: Path) -> None:
    text = page(tmp_path / "none", {"listed": 0, "labels": 40, "evaluations": 1}, ROWS[:0])
    section = text[text.index('id="labels"') : text.index('id="gallery"')]
    assert "Of 40 training labels, 0 contradict" in section
    assert "its evaluation." in section
    assert "on purpose" not in section
    assert "too few" not in section
    assert "<table" not in section
    little = page(tmp_path / "little", {"listed": 3, "labels": 40, "evaluations": 2, "agreement": 0.3}, ROWS[:3])
    assert "30.0 % of the labels: too few for the list to say much." in little.replace("\u202f", " ")
    assert 'id="labels"' not in page(tmp_path / "unwatched", None, [])


def test_the_largest_pairs_of_label_and_suggested_class_are_told(tmp_path: Path) -> None:
    pairs = [{"label": f"<{k}>", "suggested": "8", "count": 30 - k, "of": 40} for k in range(12)]
    found = {"listed": 300, "labels": 400, "evaluations": 5, "pairs": pairs, "kinds": 31}
    text = page(tmp_path / "run", found, ROWS)
    section = text[text.index('id="labels"') : text.index('id="gallery"')].replace("\u202f", " ")
    assert "The same labels by class: the 10 largest of 31 pairs." in section
    row = '<tr><td>&lt;0&gt;</td><td>8</td><td class="n">30</td><td class="n">75.0 %</td></tr>'
    assert row in section
    assert section.count("<tr><td>&lt;") == 10
    few = page(tmp_path / "few", found | {"pairs": pairs[:2], "kinds": 2}, ROWS)
    assert "The same labels by class.</caption>" in few


def test_too_many_labels_have_no_list_and_the_page_says_why(tmp_path: Path) -> None:
    text = page(tmp_path / "run", {"labels": 50000, "limit": 20000}, []).replace("\u202f", " ")
    section = text[text.index('id="labels"') : text.index('id="gallery"')]
    assert "which is done for up to 20 000 labels, and there are 50 000." in section
    assert "contradict" not in section
    assert "<table" not in section


def test_a_broken_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"suspects.csv: line 3 lacks a column. Training writes file, label"):
        page(tmp_path / "run", {"listed": 2, "labels": 40, "evaluations": 5}, [ROWS[0], "2,x.png,3"])
