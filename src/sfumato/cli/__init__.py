"""The command `sfumato`: one file a verb, each of which reads arguments, calls the package and prints."""

from sfumato.cli.main import app

__all__ = ["app"]
