"""Images with a mask of classes for each pixel: every layout becomes one table, with splits that never change."""

from sfumato.data.pairs.check import PairReport, check_pairs
from sfumato.data.pairs.classes import palette
from sfumato.data.pairs.draw import draw_pair_splits
from sfumato.data.pairs.listing import SHOWN_DIGITS
from sfumato.data.pairs.protocols import PROTOCOLS, ProtocolName
from sfumato.data.pairs.sources import NAMES as BUILTIN_NAMES
from sfumato.data.pairs.sources.lists import list_hash
from sfumato.data.pairs.sources.shapes import RARE as SHAPES_RARE
from sfumato.data.pairs.store import Crops, PairStore
from sfumato.data.pairs.table import PairTable, load_pairs, pairs_from_arrays

__all__ = [
    "BUILTIN_NAMES",
    "PROTOCOLS",
    "SHAPES_RARE",
    "SHOWN_DIGITS",
    "Crops",
    "PairReport",
    "PairStore",
    "PairTable",
    "ProtocolName",
    "check_pairs",
    "draw_pair_splits",
    "list_hash",
    "load_pairs",
    "pairs_from_arrays",
    "palette",
]
