"""docs/protocols.md: its commands, run on tiny fakes with a tiny net, and its table."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.config import load, recipe_text
from sfumato.config.text import parse
from sfumato.data.pairs import PROTOCOLS
from sfumato.data.protocols import CLASS_PROTOCOLS
from sfumato.methods import METHODS
from tests.data.pairs.protocols_on_disk import fake, make_tiny

WHOLE = (Path(__file__).resolve().parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")
PAGE, CLASSES = WHOLE.split("\n## Classification\n")
NUMBER = re.compile(r"\d+(?:,\d{3})*")
FAST = [
    "model=small_seg", "encoder=none", "model.options={}", "pretrained=false", "crop=16", "epochs=1", "batch_size=4",
    "eval_every=1",
]  # fmt: skip


def commands() -> list[list[str]]:
    blocks = re.findall(r"<!-- worked-example -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    return [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tiny(monkeypatch)
    fake(tmp_path / "VOC2012", "voc").rename(tmp_path / "moved")
    (tmp_path / "splits").mkdir()
    (tmp_path / "moved").rename(tmp_path / "splits" / "92")
    monkeypatch.chdir(tmp_path)
    run = commands()
    assert len(run) >= 4
    for words in run:
        assert words[0] == "sfumato"
        done = CliRunner().invoke(app, [*words[1:], *(FAST if words[1] == "train" else [])])
        collapsed = done.exit_code == 4 and words[1] == "train"  # so few steps may well end so
        assert done.exit_code == 0 or collapsed, (words, done.stdout, done.stderr)
    found = json.loads(Path("runs/unimatch-92/metrics.json").read_text())
    assert (found["protocol"], set(found["lists"])) == ("voc", {"labeled", "unlabeled", "val"})
    assert Path("runs/unimatch-92/report.html").exists()


def test_the_table_says_what_is_checked_and_set() -> None:
    for name, protocol in PROTOCOLS.items():
        (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |")]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:3] == [str(protocol.classes), f"{protocol.train:,}"]
        assert NUMBER.findall(cells[3]) == [f"{n:,}" for n in (protocol.val, protocol.test) if n is not None]
        sizes = [f"{size:,}" for sizes in protocol.subsets.values() for size in sizes]
        assert not sizes or NUMBER.findall(cells[4].replace("U2PL", "")) == sizes
        config = load(overrides=[f"protocol={name}"])
        assert f"{config.train.epochs} epochs" in cells[5]
        if "crop" in cells[5]:
            assert f"crop {config.views.crop}" in cells[5]


def test_the_settings_named_in_passing_are_there() -> None:
    for words in re.findall(r"`(sfumato config [^`]+)`", PAGE):
        assert CliRunner().invoke(app, words.split()[1:]).exit_code == 0, words
    for override in re.findall(r"`([a-z_.]+=[^` ]+)`", PAGE):
        load(overrides=["protocol=voc", override.replace("NUMBER", "7")] if "=voc" not in override else [override])


def row_of(name: str) -> list[str]:
    (line,) = [line for line in CLASSES.splitlines() if line.startswith(f"| `{name}` |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_data_sets_with_classes() -> None:
    for name, protocol in CLASS_PROTOCOLS.items():
        cells = row_of(name)
        assert cells[1] == f"{protocol.classes:,}"
        assert [f"{count:,}" for count in protocol.train] == NUMBER.findall(cells[2])[: len(protocol.train)]
        assert [f"{count:,}" for count in protocol.test] == NUMBER.findall(cells[3])
        assert re.findall("`(.*?)`", cells[4]) == list(parse(recipe_text(name))["budgets"])
        assert cells[5] == ("yes" if protocol.fetched else "no")


def test_the_table_of_budgets() -> None:
    for budget in ("paper", "long_tail", "usb", "quick"):
        _, _, steps, images, optimizer = row_of(budget)
        for name in CLASS_PROTOCOLS:
            if budget not in parse(recipe_text(name))["budgets"]:
                continue
            train = load(overrides=[f"protocol={name}", f"budget={budget}"]).train
            assert f"{train.steps:,}" == steps
            assert f"{train.batch_size} and {train.batch_size * train.unlabeled_ratio}" in images
            assert optimizer.lower().startswith(train.optimizer) or budget == "quick"


def test_every_table_of_the_papers_is_a_command_that_resolves() -> None:
    told = re.findall(r"^\|.*\| `(sfumato train [^`]+)` \|$", CLASSES, re.MULTILINE)
    walked = set()
    for command in told:
        words = [word for word in command.split()[2:] if "=" in word]
        config = load(overrides=words)
        recipe = "protocol=" + str(config.data.protocol)
        assert recipe in words, command
        assert config.recipe == config.data.protocol, command
        assert config.method.name in command, command
        assert any(word.startswith("seed=") for word in words)
        if (entry := METHODS[config.method.name]).dense_only:
            assert config.data.protocol in PROTOCOLS, entry
        walked.add((config.data.protocol, config.label))
    assert len(told) >= 27
    assert {protocol for protocol, _ in walked} >= {*CLASS_PROTOCOLS, "voc", "cityscapes", "coco"} - {"eurosat"}


def test_the_other_commands_and_settings_of_classification() -> None:
    for block in re.findall("```bash\n(.*?)```", CLASSES, re.DOTALL):
        for line in block.splitlines():
            words = [word for word in shlex.split(line, comments=True) if "=" in word]
            load(overrides=words)
    for words in re.findall(r"`(sfumato config [^`]+)`", CLASSES):
        assert CliRunner().invoke(app, words.split()[1:]).exit_code == 0, words
    for text in re.findall(r"`([a-z_.]+=[^`]+)`", CLASSES):
        words = [word.replace("NUMBER", "70").replace("FILE", "w.safetensors") for word in text.split()]
        needed = {"gamma_unlabeled=reversed": "gamma_labeled=100", "addon=seval": "method=fixmatch"}.get(text)
        load(overrides=["protocol=cifar10", *words, *([needed] if needed else [])])
