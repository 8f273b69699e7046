"""From what a user has to a table of images, splits that never change, and the rows of each step."""

from sfumato.data.check import CheckReport, check
from sfumato.data.draw import draw_splits
from sfumato.data.images import ImageStore
from sfumato.data.listing import Problem
from sfumato.data.sampler import StepSampler
from sfumato.data.sources.builtin import NAMES as BUILTIN_NAMES
from sfumato.data.splits import Splits
from sfumato.data.table import Table, load_table, table_from_arrays

__all__ = [
    "BUILTIN_NAMES",
    "CheckReport",
    "ImageStore",
    "Problem",
    "Splits",
    "StepSampler",
    "Table",
    "check",
    "draw_splits",
    "load_table",
    "table_from_arrays",
]
