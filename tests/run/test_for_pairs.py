"""What settings become once the images with masks are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.config import Config, load
from sfumato.errors import UsageError
from sfumato.run import for_pairs, prepare
from tests.run.masks_on_disk import with_masks


def settled(source: Path, *overrides: str) -> Config:
    config = prepare.located(load(overrides=[f"data={source}", *overrides]))
    return prepare.settled(config, prepare.open_table(config))


def test_small_images_get_the_small_net_and_whole_crops(tmp_path: Path) -> None:
    found = settled(with_masks(tmp_path, labeled=4, unlabeled=1, sizes=((32, 24), (20, 40))))
    assert (found.model.name, found.model.encoder, found.views.preset) == ("small_seg", None, "small")
    assert (found.views.crop, found.evaluate.inference, found.data.channels) == ((40, 32), "full", 3)


def test_photographs_get_an_encoder_and_crops_of_at_most_321(tmp_path: Path) -> None:
    found = settled(with_masks(tmp_path, labeled=2, unlabeled=0, sizes=((500, 200),)))
    assert (found.model.name, found.model.encoder) == ("fpn", "tf_efficientnet_lite0")
    assert (found.views.preset, found.views.crop) == ("unimatch", (200, 321))
    assert settled(tmp_path, "resize=90", "crop=30").views.crop == (30, 30)
    assert settled(tmp_path, "model=small_seg").model.encoder is None


def test_very_large_images_are_evaluated_by_windows_and_large_ones_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = with_masks(tmp_path, labeled=8, unlabeled=1)
    config = settled(source, "crop=16")
    table = prepare.open_table(config)
    splits = prepare.draw(config, table)
    model = for_pairs.make_model(config, table)
    assert for_pairs.make_data(config, table, splits, model).eval_batch == 8
    monkeypatch.setattr(for_pairs, "WHOLE", 3 * 32 * 32)
    assert for_pairs.make_data(config, table, splits, model).eval_batch == 3
    monkeypatch.setattr(for_pairs, "WHOLE", 32 * 32 - 1)
    config = settled(source, "crop=16")
    assert config.evaluate.inference == "sliding"
    data = for_pairs.make_data(config, table, splits, model)
    assert (data.eval_batch, data.inference) == (1, "sliding")
    assert settled(source, "inference=full").evaluate.inference == "full"


def test_a_crop_may_be_larger_than_the_images_in_one_direction(tmp_path: Path) -> None:
    source = with_masks(tmp_path, labeled=4, unlabeled=1, sizes=((32, 24),))
    assert settled(source, "crop=[24,40]").views.crop == (24, 40)
    with pytest.raises(UsageError, match=r"views.crop=\[40, 40\]: larger than every image \(32x24 at most\)"):
        settled(source, "crop=40")


def test_labels_per_class_in_a_file_are_refused(tmp_path: Path) -> None:
    source = with_masks(tmp_path / "data", labeled=4, unlabeled=1)
    path = tmp_path / "settings.yaml"
    path.write_text(f"data: {{source: {source}, labels_per_class: 3}}\n")
    config = prepare.located(load(path))
    with pytest.raises(UsageError, match=r"masks hold many classes each\. Use labels=NUMBER of masks, or fraction"):
        prepare.draw(config, prepare.open_table(config))
