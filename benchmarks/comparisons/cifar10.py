"""CIFAR-10 with a Wide ResNet 28-2, 40 and 250 labels: as many steps for each method as a number of minutes allows.

    python benchmarks/comparisons/cifar10.py DATA --minutes 25            # the whole table
    python benchmarks/comparisons/cifar10.py DATA --minutes 25 seeds=0    # one draw of the labels, thrice the steps
    python benchmarks/comparisons/cifar10.py DATA --steps 20 seeds=0      # does it run?

DATA is the folder with train.parquet and test.parquet, or whatever else `sfumato train` takes. First some steps of
each method are timed, then benches/cifar10.yaml is run with the most steps that fit, the same for all, and its table
printed, with the steps a second of each method. Further key=value are settings and axes as of `sfumato bench`. Runs are
kept; the same command goes on with what is missing, with the steps that were settled.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

BENCH = Path(__file__).resolve().parents[1] / "benches" / "cifar10.yaml"
SETTLED = "steps.json"
SHARE = 0.9  # of the minutes: the rest is for what the estimate does not see
SOME = 1000  # steps that the estimate is made for


def sfumato(*words: object) -> str:
    """What the command line prints on stdout; what it says on stderr goes there."""
    command = [sys.executable, "-m", "sfumato", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def steps_that_fit(minutes: float, given: list[str], jobs: int) -> int:
    """The most steps, in hundreds, with which all runs together end in time; at least one hundred."""
    found = json.loads(sfumato("bench", BENCH, *given, f"steps={SOME}", "-j", jobs, "--dry-run", "--json", "-q"))
    each = sum(kind["runs"] * kind["cost"]["full"] for kind in found["kinds"])  # seconds of one step of all runs
    aside = sum(kind["runs"] * kind["seconds"] for kind in found["kinds"]) - SOME * each
    steps = (SHARE * 60 * minutes * jobs - aside) / each
    return max(int(steps / 100), 1) * 100


def settle(folder: Path, minutes: float, steps: int | None, given: list[str], jobs: int) -> int:
    """The steps of every run, as they were settled when the first began."""
    kept = folder.with_name(f"{folder.name}-{SETTLED}")
    if kept.exists():
        return int(json.loads(kept.read_text(encoding="utf-8"))["steps"])
    steps = steps or steps_that_fit(minutes, given, jobs)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"steps": steps}) + "\n", encoding="utf-8")
    return steps


def speeds(folder: Path) -> list[str]:
    """Steps a second of each method, the mean of its runs, evaluations and all."""
    found: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*/labels-*/*/seed-*/metrics.json")):
        metrics = json.loads(file.read_text(encoding="utf-8"))
        found.setdefault(file.parents[1].name, []).append(metrics["steps"] / metrics["seconds"])
    return [f"| {name} | {mean(rates):.2f} |" for name, rates in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("settings", nargs="*", help="key=value, as for `sfumato bench`")
    parser.add_argument("--minutes", type=float, default=25, help="for all runs together; 25 by default")
    parser.add_argument("--steps", type=int, help="of each run, instead of as many as fit")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    asked = parser.parse_intermixed_args()
    given = [f"data={asked.data}", *asked.settings]

    steps = settle(asked.out, asked.minutes, asked.steps, given, asked.jobs)
    print(f"{steps} steps a run", flush=True)
    every = [f"steps={steps}", f"eval_every={steps}", f"log_every={max(steps // 20, 1)}", f"save_every={steps}"]
    sfumato("bench", BENCH, *given, *every, "-o", asked.out, "-j", asked.jobs, "-q")
    print(sfumato("table", asked.out))
    print("| method | steps/s |\n|---|---|", *speeds(asked.out), sep="\n")


if __name__ == "__main__":
    main()
