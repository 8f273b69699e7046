"""From exceptions to one message on stderr and an exit code."""

from __future__ import annotations

import errno
import os
import time
from typing import Any

import typer
from typer.core import TyperGroup

from sfumato.errors import DataError, SfumatoError

UNEXPECTED, INTERRUPTED = 1, 130


class Commands(TyperGroup):
    """Errors of the package are one message; of others, one line and how to see the rest. --debug raises them."""

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            return super().invoke(ctx)
        except SfumatoError as error:
            raise fail(str(error), error.exit_code) from None
        except KeyboardInterrupt:
            raise fail("Interrupted.", INTERRUPTED) from None
        except SystemExit as stop:
            if stop.code != INTERRUPTED:
                raise
            raise fail(str(stop), INTERRUPTED) from None
        except BrokenPipeError:  # the reader of our output has gone: typer ends quietly
            raise
        except OSError as error:
            raise fail(_told(error), DataError.exit_code) from None
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise  # wrong usage, which typer tells, or an exit
            message = (
                f"Unexpected {type(error).__name__}: {error}\nThis is a mistake in sfumato, not in what you gave it."
            )
            raise fail(f"{message} `sfumato --debug VERB ...` shows where.", UNEXPECTED) from None


def fail(message: str, code: int) -> typer.Exit:
    """The exit to raise, once the message is out; of several processes the first one speaks."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(message, err=True)
    else:
        time.sleep(1)  # torchrun stops all as soon as one has ended: not before the first has spoken
    return typer.Exit(code)


def _told(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{where}the disk is full. Free some space and go on with `sfumato train --resume FOLDER`; "
            "what was saved before is whole."
        )
    return f"{where}{error.strerror or error}."
