"""From what a user has to a table of images, splits that never change, and the rows of each step."""

from sfumato.data.check import CheckReport, check
from sfumato.data.draw import class_counts, draw_splits
from sfumato.data.images import ImageStore
from sfumato.data.label_noise import LabelNoise
from sfumato.data.listing import Problem
from sfumato.data.long_tail import LongTail
from sfumato.data.sampler import StepSampler
from sfumato.data.sources.builtin import NAMES as BUILTIN_NAMES
from sfumato.data.splits import Splits
from sfumato.data.table import Table, load_table, table_from_arrays

__all__ = [
    "BUILTIN_NAMES",
    "CheckReport",
    "ImageStore",
    "LabelNoise",
    "LongTail",
    "Problem",
    "Splits",
    "StepSampler",
    "Table",
    "check",
    "class_counts",
    "draw_splits",
    "load_table",
    "table_from_arrays",
]
