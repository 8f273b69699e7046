"""One HTML file that tells what a run did, for a reader who was not there."""

from sfumato.report.page import write_report

__all__ = ["write_report"]
