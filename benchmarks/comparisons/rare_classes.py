"""Does evening out the classes help the rare ones? FARCLUSS on the demo's masks, with and without its class weights.

    python benchmarks/comparisons/rare_classes.py            # test images, seeds 0 to 2: the figures of the docs
    python benchmarks/comparisons/rare_classes.py --choose   # validation images, seeds 3 to 5: to choose settings by
    python benchmarks/comparisons/rare_classes.py --readings none,safe_ema --seeds 0 train.steps=100

Data, masks, net and steps are those of `sfumato demo --task segmentation`; what else is set follows as for `sfumato
train`. All readings of one seed share labels, initial weights and batches, so that differences are paired by seed;
half of the training, on labels alone, is the same in all. Two processes of one thread each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import sqrt
from multiprocessing import get_context
from statistics import mean, stdev

import torch
from scipy.stats import t

from sfumato.config import load
from sfumato.run import prepare
from sfumato.run.demo import SCENES
from sfumato.train import train

READINGS = ("none", "safe", "safe_ema", "expected")
Figures = dict[str, float]


def run(reading: str, seed: int, part: str, settings: Sequence[str]) -> tuple[Figures, float]:
    """Of the network at the end of training, and the CPU seconds of all."""
    torch.set_num_threads(1)
    started = time.process_time()
    scene = SCENES["segmentation"]
    own = ["method=farcluss", f"method.rebalance={reading}", f"data.labels={scene.labels}", f"seed={seed}"]
    config = prepare.located(load(overrides=[*scene.settings, *own, *settings]))
    table = prepare.open_table(config)
    config = prepare.settled(config, table)
    splits = prepare.draw(config, table)
    model = prepare.make_model(config, table)
    data = prepare.make_data(config, table, splits, model)
    method = prepare.make_method(config, data)
    result = train(method, model, data, config.train, seed=seed, quiet=True)
    figures = data.score(result.model, getattr(splits, part), result.device).metrics
    return figures, time.process_time() - started


def line(name: str, figures: Figures, seconds: float) -> str:
    ious = "  ".join(f"{key[4:]} {value:6.1%}" for key, value in figures.items() if key.startswith("iou/"))
    rare = f"{figures['miou_rare']:6.1%}"
    return f"{name}  rare {rare}  mIoU {figures['miou']:6.1%}  ECE {figures['ece']:6.1%}  {ious}  {seconds:4.0f} s"


def difference(title: str, mine: Sequence[float], theirs: Sequence[float]) -> str:
    """The paired difference in points, and its 95 % interval over seeds by Student's t."""
    each = [100 * (one - other) for one, other in zip(mine, theirs, strict=True)]
    told = f"{title}: {mean(each):+.1f} points (seeds {' / '.join(f'{one:+.1f}' for one in each)})"
    if len(each) < 2:
        return told
    reach = float(t.ppf(0.975, len(each) - 1)) * stdev(each) / sqrt(len(each))
    return f"{told}, 95 % interval {mean(each) - reach:+.1f} to {mean(each) + reach:+.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="key=value, as for `sfumato train`")
    parser.add_argument("--choose", action="store_true", help="validation images, seeds 3 to 5")
    parser.add_argument("--readings", default=",".join(READINGS))
    parser.add_argument("--seeds", help="with commas; 0,1,2, or 3,4,5 with --choose")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    readings, part = asked.readings.split(","), "val" if asked.choose else "test"
    seeds = [int(seed) for seed in (asked.seeds or ("3,4,5" if asked.choose else "0,1,2")).split(",")]
    found: dict[str, list[Figures]] = {reading: [] for reading in readings}
    print(f"{'validation' if asked.choose else 'test'} images, {' '.join(asked.settings) or 'settings of the demo'}")
    with ProcessPoolExecutor(asked.processes, get_context("spawn")) as pool:
        todo = [(reading, seed) for seed in seeds for reading in readings]
        done = [pool.submit(run, reading, seed, part, asked.settings) for reading, seed in todo]
        for (reading, seed), one in zip(todo, done, strict=True):
            figures, seconds = one.result()
            found[reading].append(figures)
            print(line(f"{reading:8}  seed {seed}", figures, seconds), flush=True)
    for reading in readings[1:]:
        for key, name in (("miou_rare", "mIoU of the rare classes"), ("miou", "mIoU of all")):
            mine, theirs = ([one[key] for one in found[side]] for side in (reading, readings[0]))
            print(difference(f"{reading} against {readings[0]}, {name}", mine, theirs))


if __name__ == "__main__":
    main()
