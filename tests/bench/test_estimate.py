"""What a bench will take: sums over what a few steps of each kind of run have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sfumato.bench.estimate import Measured, duration, estimate, in_processes
from sfumato.bench.file import read_bench
from sfumato.bench.measure import Cost, measure
from sfumato.bench.run import Plan, plan
from sfumato.config import Config, load
from sfumato.run import held_labels, prepare
from tests.run.pictures_on_disk import class_folders

COST = Cost(start=2.0, labels_only=0.1, full=0.5, image=0.01, memory=1.5, device_memory=0.0)
HELD_OUT = {"val": 10, "test": 20}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "bars")
    settings = {"steps": 100, "batch_size": 4, "unlabeled_ratio": 2, "unlabeled_start": 0.2, "eval_every": 50}
    content = {"methods": ["fixmatch"], "data": ["bars"], "labels": [6, 9], "seeds": "0:2", "settings": settings}
    Path("bench.yaml").write_text(yaml.safe_dump(content))
    return plan(read_bench(Path("bench.yaml")), Path("out"), jobs=2, threads=1)


def stand_in(configs: Sequence[Config], planned: Plan) -> list[Measured]:
    return [(COST, HELD_OUT)] * len(configs)


def test_seconds_of_a_run() -> None:
    config = load(overrides=["steps=100", "unlabeled_start=0.2", "eval_every=40"])
    evaluations, at_the_end = 3 * 10, 3 * 30
    assert COST.seconds(config, HELD_OUT) == pytest.approx(2 + 20 * 0.1 + 80 * 0.5 + (evaluations + at_the_end) * 0.01)
    rounds = load(overrides=["method=st", "steps=100", "unlabeled_start=0", "eval_every=40"])
    twice = 2 * (evaluations + at_the_end) * 0.01
    assert COST.seconds(rounds, HELD_OUT) == pytest.approx(2 + 100 * 0.1 + 100 * 0.5 + twice)
    words = ["method=fixmatch", "addon=crest", "addon.generations=3", "steps=100", "unlabeled_start=0.2"]
    generations = load(overrides=[*words, "eval_every=40"])
    thrice = 3 * (20 * 0.1 + 80 * 0.5 + (evaluations + at_the_end) * 0.01)
    assert COST.seconds(generations, HELD_OUT) == pytest.approx(2 + thrice)
    again = 2 * (20 * 0.1 + 80 * 0.5 + (evaluations + at_the_end) * 0.01)
    assert replace(COST, trainings=2).seconds(config, HELD_OUT) == pytest.approx(2 + again)


def test_the_total_counts_what_is_left(planned: Plan) -> None:
    said: list[str] = []
    found = estimate(planned, say=said.append, measure_all=stand_in)
    assert said == ["trying a few steps of each method on each data, 2 in all"]
    one = COST.seconds(planned.cells[0].config, HELD_OUT)
    assert [(kind.method, kind.runs, kind.done) for kind in found.kinds] == [
        ("supervised_strong", 4, 0),
        ("fixmatch", 4, 0),
    ]
    assert found.seconds == pytest.approx(8 * one / 2)
    assert found.totals()[0] == f"8 runs, 0 done and 8 left; 2 at a time, each on 1 thread: about {duration(4 * one)}"
    assert found.totals()[1].startswith("memory: up to 3.0 GiB of ")
    assert found.rows()[1] == ["bars, fixmatch", "4", "0", "2", duration(one), duration(4 * one), "1.5"]
    told = found.as_json()
    assert (told["seconds"], told["jobs"], told["kinds"][1]["cost"]["full"]) == (found.seconds, 2, 0.5)
    assert not planned.folder.exists()


def test_finished_and_half_done_runs(planned: Plan) -> None:
    done, half = (planned.folder / cell.path for cell in planned.cells[:2])
    done.mkdir(parents=True)
    (done / "metrics.json").write_text("{}")
    half.mkdir(parents=True)
    (half / "metrics.jsonl").write_text('{"step": 25}\n')
    found = estimate(planned, say=lambda line: None, measure_all=stand_in)
    one = COST.seconds(planned.cells[0].config, HELD_OUT)
    assert sum(kind.left for kind in found.kinds) == pytest.approx((8 - 1 - 0.25) * one)
    assert found.totals()[0].startswith("8 runs, 1 done and 7 left;")


def test_a_run_of_two_trainings_is_half_done_after_the_first(planned: Plan) -> None:
    def left() -> float:
        return sum(kind.left for kind in estimate(planned, say=lambda line: None, measure_all=twice).kinds) / one

    def twice(configs: Sequence[Config], planned: Plan) -> list[Measured]:
        return [(replace(COST, trainings=2), HELD_OUT)] * len(configs)

    one = replace(COST, trainings=2).seconds(planned.cells[0].config, HELD_OUT)
    folder = planned.folder / planned.cells[0].path
    (folder / "rounds" / "1").mkdir(parents=True)
    (folder / "rounds" / "1" / "metrics.jsonl").write_text('{"step": 50}\n')
    assert left() == pytest.approx(8 - 0.25)
    (folder / "rounds" / "1" / "metrics.jsonl").write_text('{"step": 100}\n')
    (folder / "metrics.jsonl").write_text('{"step": 20}\n')
    assert left() == pytest.approx(8 - 0.6)


def test_the_trainings_of_held_out_labels_are_counted(planned: Plan) -> None:
    (config,) = [cell.config for cell in planned.cells if cell.name == "bars, 9 labels, fixmatch, seed 0"]
    table = prepare.open_table(config)

    def learning(how: str) -> Config:
        section = type(config.addon).model_validate({"name": "seval", "val": how})
        return config.model_copy(update={"addon": section})

    assert held_labels.trainings(config, table) == held_labels.trainings(learning("split_online"), table) == 1
    cost, _ = measure(learning("split_estimate"), threads=1)
    assert cost.trainings == 2


def test_too_much_memory_is_told(planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfumato.bench.estimate.available", lambda: 2.0)
    found = estimate(planned, say=lambda line: None, measure_all=stand_in)
    assert found.totals()[1:] == [
        "memory: up to 3.0 GiB of 2.0 free", "warning: that is more than is free. Take --jobs 1.",
    ]  # fmt: skip


def test_durations() -> None:
    assert [duration(seconds) for seconds in (4.4, 59.9, 89, 3600, 9000, 200_000)] == [
        "4 s", "60 s", "1 min", "1 h 0 min", "2 h 30 min", "2 d 7 h",
    ]  # fmt: skip


@pytest.mark.parametrize("method", ("fixmatch", "st"))
def test_a_few_steps_are_measured_and_nothing_is_kept(method: str, planned: Plan) -> None:
    """In this process, whose memory is that of all tests before too."""
    cells = [cell for cell in planned.cells if cell.method == "fixmatch"]
    config = cells[0].config.with_method(method)
    before = sorted(Path().rglob("*"))
    cost, held_out = measure(config, threads=1)
    splits = prepare.draw(config, prepare.open_table(config))
    assert held_out == {"val": len(splits.val), "test": len(splits.test)}
    assert 0 < cost.labels_only < 1
    assert 0 < cost.full < 1
    assert 0 < cost.image < 0.1
    assert 0.1 < cost.memory < 50
    assert sorted(Path().rglob("*")) == before


@pytest.mark.slow
def test_each_is_measured_in_a_process_of_its_own(planned: Plan) -> None:
    found = estimate(planned, say=lambda line: None, measure_all=in_processes)
    assert all(0.1 < kind.cost.memory < 4 for kind in found.kinds)
    assert all(0.5 < kind.cost.start < 60 for kind in found.kinds)
