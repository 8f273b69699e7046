"""Real groups of processes for tests: one pair of gloo ranks, started once, which runs any number of functions.

def work(x):                      # a function of a module: each rank imports it by name
    return distributed.rank(), x

def test_it(two_ranks):
    assert two_ranks.call(work, 3) == [(0, 3), (1, 3)]
"""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

TIMEOUT = 120  # seconds for one call; the first one also waits for the processes to import torch


class Ranks:
    """`world` processes in a gloo group. They start at the first call, and again after a call that failed."""

    def __init__(self, world: int = 2) -> None:
        self.world = world
        self._running: list[tuple[Any, Connection]] = []

    def call(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """What `function(*args)` returns on each rank, in rank order.

        Raises:
            AssertionError: it raised on some rank, with that rank's traceback, or took too long.
        """
        if not self._running:
            self._start()
        for _, pipe in self._running:
            pipe.send_bytes(pickle.dumps((function, args)))  # by value: send() would pass tensors in shared memory
        answers: dict[int, tuple[bool, Any]] = {}
        pipes = {pipe: rank for rank, (_, pipe) in enumerate(self._running)}
        patience = TIMEOUT
        while pipes and (ready := wait(list(pipes), timeout=patience)):
            for pipe in ready:
                answers[pipes.pop(pipe)] = answer = pickle.loads(pipe.recv_bytes())
                # After a failure the other ranks may wait in a collective for ever: they get a moment, no more.
                patience = patience if answer[0] else 2
        failures = [f"rank {rank}: {text}" for rank, (ok, text) in sorted(answers.items()) if not ok]
        failures += [f"rank {rank}: no answer" for rank in pipes.values()]
        if failures:
            self.close(kill=True)
            raise AssertionError("\n".join(failures))
        return [value for _, (_, value) in sorted(answers.items())]

    def _start(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        for rank in range(self.world):
            mine, theirs = spawn.Pipe()
            process = spawn.Process(
                target=_serve, args=(rank, self.world, Path(self._folder.name) / "store", theirs), daemon=True
            )
            process.start()
            theirs.close()
            self._running.append((process, mine))

    def close(self, *, kill: bool = False) -> None:
        for process, pipe in self._running:
            if kill:
                process.kill()
            else:
                pipe.send_bytes(pickle.dumps(None))
        for process, pipe in self._running:
            process.join(10)
            pipe.close()
        if self._running:
            self._folder.cleanup()
        self._running = []


def _serve(rank: int, world: int, store: Path, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    # A file instead of a port: nothing can be in its way.
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    while (job := pickle.loads(pipe.recv_bytes())) is not None:
        function, args = job
        try:
            answer = (True, function(*args))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
    dist.destroy_process_group()
