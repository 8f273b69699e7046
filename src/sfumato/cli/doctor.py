"""sfumato doctor"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sfumato.cli.show import print_json

MARKS = {"ok": "ok      ", "warning": "warning ", "problem": "PROBLEM "}
COLOURS = {"ok": None, "warning": typer.colors.YELLOW, "problem": typer.colors.RED}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Versions, device, memory and folders; each problem with its remedy. Exits with 3 if something must be mended."""
    from sfumato.run.doctor import examine

    checks = examine()
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            typer.secho(f"{MARKS[check.status]}{check.name}: {check.found}", fg=COLOURS[check.status])
            if check.remedy:
                typer.echo(f"        -> {check.remedy}")
    if any(check.status == "problem" for check in checks):
        raise typer.Exit(3)
