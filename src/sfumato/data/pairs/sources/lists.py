"""Split lists as UniMatch and its followers write them: labeled.txt, unlabeled.txt, val.txt with `image mask` a line.

A line of one path has no mask. The lists say which images are labelled: masks of the others only serve telemetry.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfumato.data.listing import UNLABELED_NAMES, Problem, examples, plural
from sfumato.data.pairs.classes import CITYSCAPES, VOC, ClassTable, find_table
from sfumato.data.pairs.listing import ListFile, Pair, PairListing
from sfumato.errors import DataError

LABELED = ("labeled.txt", "labelled.txt")
UNLABELED = tuple(f"{name}.txt" for name in sorted(UNLABELED_NAMES))
CSV = "Paths with spaces cannot stand in such a list: give a CSV with the columns image,mask,split instead."


@dataclass(frozen=True, slots=True)
class _Line:
    file: Path
    number: int
    image: str
    mask: str  # '' = none
    part: str  # labeled, unlabeled, val or test

    def __str__(self) -> str:
        return f"{self.file}: line {self.number}"


def matches(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LABELED)


def list_hash(path: Path) -> str:
    """12 hex digits that tell one list from another, whatever its line ends and with or without a final newline."""
    return ListFile.read(path).hash


def read(root: Path, lists: Path) -> PairListing:
    """Paths are relative to `root`. val.txt and test.txt may also be in the folder above the lists."""
    files = _files(lists)
    if "labeled" not in files:
        raise DataError(f"{lists}: no {LABELED[0]} in it. Expected labeled.txt, unlabeled.txt and val.txt.")
    found = tuple(ListFile.read(path, part) for part, path in files.items())
    problems = [Problem("note", f"{f.path.name}: {plural(f.lines, 'line')}, hash {f.hash}.") for f in found]
    lines: dict[str, _Line] = {}
    for part, path in files.items():
        for line in _lines(path, part):
            first = lines.setdefault(line.image, line)
            if part in ("val", "test") and first.part != part:
                problems.append(_twice(line, first))
            elif first is not line and first.part == part:
                problems.append(_again(line, first))
    pairs = [_pair(root, line) for line in lines.values()]
    problems += _missing_images(root, list(lines.values())) + _missing_masks(root, list(lines.values()))
    table = find_table(root) or _known_table(pairs)
    return PairListing(pairs, f"lists of {lists.name}/", table, problems=problems, lists=found)


def _files(lists: Path) -> dict[str, Path]:
    """In the order in which they decide: an image that is labelled may also be in the list of unlabelled ones."""
    here = {"labeled": LABELED, "val": ("val.txt",), "test": ("test.txt",), "unlabeled": UNLABELED}
    found = {}
    for part, names in here.items():
        folders = (lists, lists.parent) if part in ("val", "test") else (lists,)
        paths = [folder / name for folder in folders for name in names if (folder / name).is_file()]
        if paths:
            found[part] = paths[0]
    return found


def _lines(path: Path, part: str) -> list[_Line]:
    found = []
    for number, text in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        words = text.split()
        if len(words) > 2:
            raise DataError(
                f"{path}: line {number} has {len(words)} words, '{text.strip()}'. Expected `image mask`. {CSV}"
            )
        if words:
            found.append(_Line(path, number, words[0], words[1] if len(words) == 2 else "", part))
    if not found and part == "labeled":
        raise DataError(f"{path}: empty. Expected `image mask` a line.")
    return found


def _pair(root: Path, line: _Line) -> Pair:
    mask = root / line.mask if line.mask and (root / line.mask).is_file() else None
    split = line.part if line.part in ("val", "test") else "train"
    name = line.mask if mask else ""
    return Pair(root / line.image, line.image, mask, name, split, may_label=line.part != "unlabeled")


def _twice(line: _Line, first: _Line) -> Problem:
    return Problem("error", f"{line}: '{line.image}' is also in {first.file.name}, line {first.number}. Keep one.")


def _again(line: _Line, first: _Line) -> Problem:
    return Problem("warning", f"{line}: '{line.image}' stands in line {first.number} already and counts once.")


def _missing_images(root: Path, lines: list[_Line]) -> list[Problem]:
    missing = [line for line in lines if not (root / line.image).is_file()]
    if not missing:
        return []
    count = plural(len(missing), "image")
    message = (
        f"{missing[0]}: no file '{missing[0].image}' in {root} ({count} missing: "
        f"{examples([line.image for line in missing])}). Paths are relative to the data folder. {CSV}"
    )
    return [Problem("error", message)]


def _missing_masks(root: Path, lines: list[_Line]) -> list[Problem]:
    """An error where masks are needed; of unlabelled images only the truth for telemetry is lost."""
    missing = [line for line in lines if not line.mask or not (root / line.mask).is_file()]
    needed = [line for line in missing if line.part == "labeled" or (line.part == "val" and line.mask)]
    if not needed:
        return []
    line = needed[0]
    what = f"no mask file '{line.mask}' in {root}" if line.mask else f"'{line.image}' has no mask"
    return [Problem("error", f"{line}: {what}. Expected `image mask`; unlabelled images belong into unlabeled.txt.")]


def _known_table(pairs: list[Pair]) -> ClassTable | None:
    """The classes of a data set that its folders give away."""
    for start, table in (("JPEGImages/", VOC), ("leftImg8bit/", CITYSCAPES)):
        if all(pair.name.startswith(start) for pair in pairs):
            return table
    return None
