from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from sfumato import checkpoint
from sfumato.errors import DataError, UsageError
from sfumato.models import build_model


def save(folder: Path, step: int, **tensors: Tensor) -> Path:
    group = tensors or {"weight": torch.full((2, 3), float(step))}
    return checkpoint.save(folder, step, {"model": group}, {"step": step}, {"state": {}, "param_groups": []})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def same(one: Any, other: Any) -> bool:
    """Equal in type, structure and every bit."""
    if isinstance(one, Tensor):
        bits = [value.contiguous().view(torch.uint8) if value.ndim else value[None].view(torch.uint8)
                for value in (one, other)]  # fmt: skip
        return one.dtype == other.dtype and one.shape == other.shape and bits[0].equal(bits[1])
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_model_and_optimizer_come_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    model = build_model("small", num_classes=3, in_channels=1, image_size=8).to(memory_format=torch.channels_last)
    groups = model.parameter_groups(lr=0.1, weight_decay=0.01, backbone_lr_scale=0.3)
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(groups, momentum=0.9, nesterov=True) if kind == "sgd" else torch.optim.AdamW(groups)
    )
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).logits.square().sum().backward()
        optimizer.step()
    state = {"step": 3, "best": 0.1 + 0.2, "config": {"lr": [0.1, None]}, "name": "é"}
    path = checkpoint.save(tmp_path, 3, {"model": model.state_dict(), "method": {}}, state, optimizer.state_dict())
    loaded = checkpoint.load(path)
    assert path.name == "step-00000003"
    assert loaded.step == 3
    assert loaded.state == state
    assert set(loaded.tensors) == {"model", "method"}
    assert same(loaded.optimizer, optimizer.state_dict())
    assert set(loaded.tensors["model"]) == set(model.state_dict())
    assert all(same(loaded.tensors["model"][name], value) for name, value in model.state_dict().items())


def test_tensors_of_every_kind(tmp_path: Path) -> None:
    base = torch.randn(4, 3, 5, 6)
    tied = torch.randn(7)
    tensors = {
        "channels_last": base.to(memory_format=torch.channels_last),
        "transposed": base.transpose(1, 3),
        "slice": base[1:3, :2],
        "expanded": torch.tensor(3.0).expand(4, 2),
        "one": tied,
        "two": tied,
        "part": tied[2:],
        "scalar": torch.tensor(5),
        "flag": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
        "also_empty": torch.zeros(0),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "double": torch.randn(3).double(),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "parameter": nn.Parameter(torch.randn(2)),
    }
    loaded = checkpoint.load(save(tmp_path, 1, **tensors)).tensors["model"]
    assert set(loaded) == set(tensors)
    for name, value in tensors.items():
        assert same(loaded[name], value.detach()), name


def test_the_newest_is_found(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") == (None, [])
    assert checkpoint.latest(tmp_path) == (None, [])
    for step in (5, 100, 20):
        save(tmp_path, step)
    found = checkpoint.latest(tmp_path)
    assert found.path == tmp_path / "step-00000100"
    assert found.skipped == []


def truncate(path: Path) -> str:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    return f"model.safetensors has {file.stat().st_size} bytes, expected {file.stat().st_size + 4}"


def flip(path: Path) -> str:
    file = path / "optimizer.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return "optimizer.pt was changed after it was written (sha256 differs)"


def lose(path: Path) -> str:
    (path / "state.json").unlink()
    return "state.json is missing"


def lose_manifest(path: Path) -> str:
    (path / "manifest.json").unlink()
    return "manifest.json is missing"


def cut_manifest(path: Path) -> str:
    (path / "manifest.json").write_text((path / "manifest.json").read_text()[:40])
    return "manifest.json cannot be read"


def age(path: Path) -> str:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, "format": 9}))
    return "its format is 9, this version of sfumato reads 1"


@pytest.mark.parametrize("damage", [truncate, flip, lose, lose_manifest, cut_manifest, age])
def test_broken_ones_are_passed_over_and_named(tmp_path: Path, damage: Any) -> None:
    good, bad = save(tmp_path, 10), save(tmp_path, 20)
    fault = damage(bad)
    found = checkpoint.latest(tmp_path)
    assert found.path == good
    assert found.skipped == [f"Passed over checkpoint {bad}: {fault}."]
    with pytest.raises(DataError) as told:
        checkpoint.load(bad)
    assert str(told.value) == f"Cannot use checkpoint {bad}: {fault}. Use an earlier one from {tmp_path}."
    save(tmp_path, 20)
    assert checkpoint.latest(tmp_path) == (bad, [])


def test_when_all_are_broken_there_is_none(tmp_path: Path) -> None:
    for step in (1, 2):
        truncate(save(tmp_path, step))
    found = checkpoint.latest(tmp_path)
    assert found.path is None
    assert len(found.skipped) == 2


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_ones_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, code: int
) -> None:
    old = save(tmp_path, 10)
    write = checkpoint._write

    def full(path: Path, content: Any) -> None:
        write(path, content)
        if path.name == file:
            os.truncate(path, path.stat().st_size // 2)
            raise OSError(code, "No space left on device")

    monkeypatch.setattr(checkpoint, "_write", full)
    for step in (10, 20):  # over an old one, and a new one
        with pytest.raises(DataError, match=rf"Disk full while saving a checkpoint in {tmp_path}: [\d,.]+ MiB free"):
            save(tmp_path, step)
        assert names(tmp_path) == ["step-00000010"]
        assert checkpoint.latest(tmp_path) == (old, [])
    monkeypatch.undo()
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


def test_a_disk_that_fills_up_under_tensors_is_said_to_be_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written by safetensors, whose errors are no OSErrors."""

    def fail(tensors: Any, path: Path) -> None:
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    old = save(tmp_path, 10)
    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(DataError, match="Disk full while saving a checkpoint"):
        save(tmp_path, 20)
    with pytest.raises(DataError, match="Disk full while saving a checkpoint"):
        checkpoint.save_copy(tmp_path / "copies", 20, {"weight": torch.ones(2)})
    assert checkpoint.latest(tmp_path) == (old, [])


def test_a_tensor_mapped_from_a_file_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be larger than the memory: safetensors writes from where it lies."""
    with (tmp_path / "table").open("wb") as file:
        file.truncate(4 * 1000)
    mapped = torch.from_file(str(tmp_path / "table"), shared=True, size=1000).reshape(10, 100)
    mapped[-1] = 7.0
    places, write = [], safetensors.torch.save_file

    def watched(tensors: dict[str, Tensor], path: Path) -> None:
        places.extend(tensor.data_ptr() for tensor in tensors.values())
        write(tensors, path)

    monkeypatch.setattr(safetensors.torch, "save_file", watched)
    path = save(tmp_path / "checkpoints", 1, table=mapped)
    assert mapped.data_ptr() in places
    assert same(checkpoint.load(path).tensors["model"]["table"], mapped)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"Cannot write a checkpoint in .*file: .* Check that the folder exists"):
        save(tmp_path / "file", 1)


def test_a_crash_at_any_moment_of_a_save_leaves_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file operation in turn is the last one; a killed process runs no cleaning of its own."""

    class Killed(BaseException):
        pass

    operations = 0
    for last in range(100):
        folder = tmp_path / str(last)
        save(folder, 10, weight=torch.tensor([1.0]))
        left = [last]

        def step(real: Any, left: list[int] = left) -> Any:
            def run(*args: Any, **options: Any) -> Any:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return real(*args, **options)

            return run

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_write", step(checkpoint._write))
            patch.setattr(checkpoint, "_flush", step(checkpoint._flush))
            patch.setattr(checkpoint.os, "replace", step(checkpoint.os.replace))
            patch.setattr(checkpoint.shutil, "rmtree", step(shutil.rmtree))
            try:
                save(folder, 10, weight=torch.tensor([2.0]))
            except Killed:
                operations += 1
            else:
                break
        found = checkpoint.latest(folder)
        assert found.path is not None
        assert found.skipped == []
        assert checkpoint.load(found.path).tensors["model"]["weight"].item() in (1.0, 2.0)
        save(folder, 11)
        assert names(folder) == ["step-00000010", "step-00000011"]
    assert operations >= 9  # four files, two renames, two flushes, the removal of the old one


def test_what_interrupted_saves_left_behind_goes(tmp_path: Path) -> None:
    save(tmp_path, 10)
    for name in (".step-00000020.new", ".step-00000005.gone", ".step-00000010.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    (tmp_path / "notes").mkdir()
    assert checkpoint.latest(tmp_path).path == tmp_path / "step-00000010"
    save(tmp_path, 30)
    assert names(tmp_path) == ["notes", "step-00000010", "step-00000030"]


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step)
    deleted = checkpoint.prune(tmp_path, 2)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]
    assert [path.name for path in deleted] == [f"step-0000000{step}" for step in (1, 2, 3, 4)]
    assert checkpoint.prune(tmp_path, 2) == []
    assert checkpoint.prune(tmp_path / "none", 2) == []


def test_prune_never_counts_a_broken_one_among_the_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    truncate(tmp_path / "step-00000003")
    checkpoint.prune(tmp_path, 1)
    assert names(tmp_path) == ["step-00000002"]


def test_prune_must_keep_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"keep=0: at least 1 checkpoint must be kept"):
        checkpoint.prune(tmp_path, 0)


def test_what_could_not_be_read_back_safely_is_refused_when_saved(tmp_path: Path) -> None:
    optimizer = {"param_groups": [{"lr": np.float64(0.1)}]}
    with pytest.raises(UsageError, match=r"optimizer\['param_groups'\]\[0\]\['lr'\] is a numpy.float64"):
        checkpoint.save(tmp_path, 1, {}, {}, optimizer)
    with pytest.raises(UsageError, match=r"the state is not JSON: .* Use numbers, strings"):
        checkpoint.save(tmp_path, 1, {}, {"path": Path("x")}, {})
    with pytest.raises(UsageError, match=r"'../model' is no name for a group of tensors"):
        checkpoint.save(tmp_path, 1, {"../model": {}}, {}, {})
    assert names(tmp_path) == []


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def test_no_code_of_the_file_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    path = save(tmp_path, 1)
    torch.save({"state": Dangerous()}, path / "optimizer.pt")
    data = (path / "optimizer.pt").read_bytes()
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["optimizer.pt"] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="Cannot read checkpoint"):
        checkpoint.load(path)
    assert "never" not in capsys.readouterr().out
