"""`python -m sfumato.run.worker ...` is `sfumato ...`, stopped (saved) when the process that started it dies.

Otherwise a demo that was killed would leave runs behind that still write to the folders it is continued in.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux


def follow_parent() -> None:
    """Linux only; elsewhere the lock of the run folder keeps two processes apart."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died meanwhile
            os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    follow_parent()
    runpy.run_module("sfumato", run_name="__main__", alter_sys=True)
