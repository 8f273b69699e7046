"""docs/protocols.md: its commands, run on tiny fakes with a tiny net, and its table."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfumato.cli import app
from sfumato.config import load
from sfumato.data.pairs import PROTOCOLS
from tests.data.pairs.protocols_on_disk import fake, make_tiny

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")
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
