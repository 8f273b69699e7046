"""Whole jobs: from settings to a run folder, and from a run folder to figures and predictions."""

from sfumato.run.experiment import Summary, experiment, rehearsal, reopened

__all__ = ["Summary", "experiment", "rehearsal", "reopened"]
