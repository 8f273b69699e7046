"""The table of trainings, of a run that takes several."""

from __future__ import annotations

import json
from pathlib import Path

from sfumato.report import wording, write_report
from sfumato.report.read import read_run
from tests.report import fake_run

IMAGES = {"labeled": 40, "unlabeled": 3800, "val": 200, "test": 1000}


def stage(method: str, val: float, test: float, **more: object) -> dict[str, object]:
    return {"method": method, "images": IMAGES, "val": {"acc": val}, "test": {"acc": test}} | more


def write(folder: Path, *rounds: dict[str, object], seed: int = 0, **more: object) -> Path:
    fake_run.write_run(folder, fake_run.FIXMATCH, seed=seed, n=200, steps=100)
    path = folder / "metrics.json"
    held = json.loads(path.read_text()) | {"images": IMAGES} | more | ({"rounds": rounds} if rounds else {})
    path.write_text(json.dumps(held))
    return folder


def table(text: str) -> str:
    begin = text.index('id="rounds"')
    return text[begin : text.index("</table>", begin)].replace("\u202f", " ")


def test_generations_with_what_has_joined(tmp_path: Path) -> None:
    joined = [{"images": 150, "right": 0.875}, {"images": 310, "right": None}]
    rounds = [stage("fixmatch+crest", 0.5, 0.5125), stage("fixmatch+crest", 0.6, 0.625, joined=joined[0])]
    folder = write(tmp_path / "run", *rounds, joined=joined[1])
    text = table(write_report(folder).read_text())
    assert text.count("<tr><td>") == 3
    assert "The trainings of fixmatch, each from scratch" in text
    assert "Joined: images that were trained on as labelled" in text
    assert '<td>1</td><td>fixmatch+crest</td><td class="n">40</td><td class="n">0</td>' in text
    assert '<td class="n">150</td><td class="n">87.5 %</td>' in text
    assert '<td class="n">50.0 %</td><td class="n">51.2 %</td>' in text
    assert f'<td class="n">310</td><td class="n">{wording.DASH}</td>' in text


def test_rounds_in_which_nothing_joins_and_a_run_of_one_training(tmp_path: Path) -> None:
    text = table(write_report(write(tmp_path / "st", stage("supervised_strong", 0.4, 0.45))).read_text())
    assert text.count("<tr><td>") == 2
    assert "oined" not in text
    assert 'id="rounds"' not in write_report(write(tmp_path / "one")).read_text()
    assert read_run(tmp_path / "one").stages == ()


def test_seeds_are_averaged(tmp_path: Path) -> None:
    for seed, test in ((0, 0.5), (1, 0.7)):
        write(tmp_path / f"seed-{seed}", stage("supervised_strong", 0.4, test), seed=seed)
    (tmp_path / "config.yaml").write_text("name: x\n")
    assert "60.0 ± 14.1 %" in table(write_report(tmp_path).read_text())
