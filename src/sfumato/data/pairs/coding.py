"""What the stored numbers of masks mean: decided once from all that occur, refused where they mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfumato.data.listing import SHOWN, Problem, examples, plural
from sfumato.data.pairs.classes import ClassTable, numbered, table_of
from sfumato.data.pairs.masks import MaskLook, Raw
from sfumato.types import VOID

MOST_SHOWN = 8  # values in a message
FOREGROUND = "The masks hold 0 and 255 only: 255 is taken for the second class, not for void."
GAPS = (
    "The masks hold the class numbers {numbers} ({first} in {name}): expected {expected}, … without a gap, at most "
    "255 of them. "
    "Name the classes in a class table (classes=…), translate the numbers (mapping=… of load_pairs), or say which one "
    "is void (void=…)."
)


@dataclass(frozen=True, eq=False)
class Coding:
    """Stored number -> class, or VOID."""

    of_value: Mapping[int, int]
    of_color: Mapping[int, int] = field(default_factory=dict)  # 0xRRGGBB -> class; empty: masks hold no colors

    def meaning(self, look: MaskLook) -> Mapping[int, int]:
        """Of the numbers of one mask: colors if the class table has any, and else grey stored as RGB."""
        if not look.colored:
            return self.of_value
        return self.of_color or {grey(value): label for value, label in self.of_value.items() if 0 <= value <= 255}

    def labels(self, raw: Raw) -> NDArray[np.uint8]:
        """Classes (H, W) with VOID where there is none; numbers without a meaning become VOID too."""
        if raw.colored and self.of_color:
            return _translate(np.asarray(raw.values, dtype=np.int64), self.of_color)
        values = raw.values & 0xFF if raw.colored else raw.values
        if values.dtype != np.uint8 and not raw.colored:
            return _translate(np.asarray(values, dtype=np.int64), self.of_value)
        lookup = np.full(256, VOID, dtype=np.uint8)
        for value, label in self.of_value.items():
            if 0 <= value <= 255:
                lookup[value] = label
        return lookup[values]

    def count(self, look: MaskLook, classes: int) -> NDArray[np.int64]:
        """(C + 1,) pixels of each class of one mask, the last those of none."""
        numbers = np.zeros(classes + 1, dtype=np.int64)
        meaning = self.meaning(look)
        for value, pixels in look.counts.items():
            label = meaning.get(value, VOID)
            numbers[classes if label == VOID else label] += pixels
        return numbers


@dataclass(frozen=True, eq=False)
class Decided:
    coding: Coding
    table: ClassTable
    problems: list[Problem]


def decide(
    looks: Sequence[tuple[str, MaskLook]], table: ClassTable | None, mapping: Mapping[int, int] | None, void: int
) -> Decided:
    """The coding of these masks (name, look). Its problems name every mask that does not fit it.

    table None: as many classes as there are numbers. mapping: stored number -> class or 255, instead of the numbers
    themselves. void: the stored number of pixels without a class; 0 means that classes are numbered from 1.
    """
    found = _numbers(looks, table)
    foreground = mapping is None and _only_foreground(found, table, void)
    problems = [Problem("warning", FOREGROUND)] if foreground else []
    if foreground:
        meaning = {0: 0, VOID: 1}
        table = table or table_of(["background", "foreground"])
    elif table is None:
        meaning, table, holes = _infer(looks, found, mapping, void)
        problems += holes
    else:
        meaning, wrong = _agree(table, mapping, void)
        problems += wrong
    colors = {packed(color): label for label, color in enumerate(table.colors.tolist())} if table.coded else {}
    colors |= {packed(color): VOID for color in table.void_colors} if table.coded else {}
    coding = Coding(meaning, colors)
    problems += _unknown_values(looks, coding, len(table), void, mapped=mapping is not None) + _unknown_colors(
        looks, coding
    )
    return Decided(coding, table, problems)


def _numbers(looks: Sequence[tuple[str, MaskLook]], table: ClassTable | None) -> set[int]:
    """Every class number stored anywhere: grey saved as RGB is one too, unless the table has colors."""
    found: set[int] = set()
    for _, look in looks:
        if not look.colored:
            found |= look.counts.keys()
        elif table is None or not table.coded:
            found |= {value & 0xFF for value in look.counts if value == grey(value & 0xFF)}
    return found


def _only_foreground(found: set[int], table: ClassTable | None, void: int) -> bool:
    """Black and white masks: taken literally, 255 would be void and leave a single class, of no use to anyone."""
    return void == VOID and VOID in found and found <= {0, VOID} and (table is None or len(table) == 2)


def _infer(
    looks: Sequence[tuple[str, MaskLook]], found: set[int], mapping: Mapping[int, int] | None, void: int
) -> tuple[dict[int, int], ClassTable, list[Problem]]:
    """As many classes as the masks (or the mapping) name. Gaps are refused: who knows what is meant."""
    shift = 1 if void == 0 else 0
    meaning = dict(mapping) if mapping is not None else {value: value - shift for value in found - {void}}
    labels = set(meaning.values())
    named = sorted(labels if mapping is None else labels - {VOID})
    count = named[-1] + 1 if named else 1
    if not named or (named == list(range(count)) and count <= VOID):
        return {void: VOID} | meaning, numbered(count), []
    if mapping is not None:
        message = f"mapping: the classes {listed(named)} leave a gap. Expected 0, 1, 2, …, at most {VOID} of them."
    else:
        numbers = sorted(meaning)
        first = next((n for place, n in enumerate(numbers) if n != place + shift or place >= VOID), numbers[-1])
        name = next(name for name, look in looks if {first, grey(first)} & look.counts.keys())
        expected = f"{shift}, {shift + 1}, {shift + 2}"
        message = GAPS.format(numbers=listed(numbers), first=first, name=name, expected=expected)
    problem = Problem("error", message)
    return {void: VOID} | dict.fromkeys(meaning, 0), numbered(1), [problem]


def _agree(table: ClassTable, mapping: Mapping[int, int] | None, void: int) -> tuple[dict[int, int], list[Problem]]:
    shift = 1 if void == 0 else 0
    if mapping is None:
        return {label + shift: label for label in range(len(table))} | {void: VOID}, []
    bad = sorted({label for label in mapping.values() if label != VOID and not 0 <= label < len(table)})
    if not bad:
        return {void: VOID} | dict(mapping), []
    message = f"mapping: classes {listed(bad)} are not of 0..{len(table) - 1}, nor 255 (void)."
    return {void: VOID} | dict.fromkeys(mapping, VOID), [Problem("error", message)]


def _unknown_values(
    looks: Sequence[tuple[str, MaskLook]], coding: Coding, classes: int, void: int, *, mapped: bool
) -> list[Problem]:
    bad = [(name, look) for name, look in looks if not look.colored and set(look.counts) - set(coding.of_value)]
    if not bad:
        return []
    name, look = bad[0]
    values = sorted(set(look.counts) - set(coding.of_value))
    classes_are = sorted(value for value, label in coding.of_value.items() if label != VOID)
    add = "name it in mapping=… (255 is void)" if mapped else "add what is missing to the class table (classes=…)"
    message = (
        f"{name}: mask {'value' if len(values) == 1 else 'values'} {listed(values)} out of range: expected "
        f"{_span(classes_are)} ({plural(classes, 'class')}) or {void} (void). Correct the mask, {add}, or say "
        f"which number is void (void=…).{more(bad)}"
    )
    return [Problem("error", message)]


def _unknown_colors(looks: Sequence[tuple[str, MaskLook]], coding: Coding) -> list[Problem]:
    bad = [(name, look) for name, look in looks if look.colored and set(look.counts) - set(coding.meaning(look))]
    if not bad:
        return []
    name, look = bad[0]
    unknown = sorted(set(look.counts) - set(coding.meaning(look)), key=lambda value: -look.counts[value])
    shown = ", ".join(str(unpacked(value)) for value in unknown[:SHOWN])
    rest = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    if coding.of_color:
        message = (
            f"{name}: mask colours {shown}{rest} are not in the class table. Add them to it (name,r,g,b a line; "
            f"a line 'void' for pixels without a class), or correct the mask.{more(bad)}"
        )
    else:
        message = (
            f"{name}: the mask is coloured: {shown}{rest}. Expected one class number a pixel, or a class table with "
            f"the colours of the classes (classes=FILE, name,r,g,b a line).{more(bad)}"
        )
    return [Problem("error", message)]


def more(bad: Sequence[tuple[str, object]]) -> str:
    """A closing sentence naming the masks after the first."""
    if len(bad) < 2:
        return ""
    return f" ({plural(len(bad) - 1, 'mask')} more like it: {examples([name for name, _ in bad[1:]])}.)"


def listed(values: Sequence[object]) -> str:
    shown = ", ".join(str(value) for value in values[:MOST_SHOWN])
    return shown if len(values) <= MOST_SHOWN else f"{shown} and {len(values) - MOST_SHOWN} more"


def _span(values: Sequence[int]) -> str:
    """'0..4' of neighbors, and else a list."""
    gapless = len(values) > 1 and values[-1] - values[0] == len(values) - 1
    return f"{values[0]}..{values[-1]}" if gapless else listed(values)


def grey(value: int) -> int:
    return value * 0x010101


def packed(color: Sequence[int]) -> int:
    return int(color[0]) << 16 | int(color[1]) << 8 | int(color[2])


def unpacked(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 0xFF, value & 0xFF


def _translate(values: NDArray[np.int64], meaning: Mapping[int, int]) -> NDArray[np.uint8]:
    keys = np.array(sorted(meaning), dtype=np.int64)
    labels = np.array([meaning[key] for key in keys.tolist()], dtype=np.uint8)
    places = np.searchsorted(keys, values).clip(max=len(keys) - 1)
    return np.where(keys[places] == values, labels[places], np.uint8(VOID))
