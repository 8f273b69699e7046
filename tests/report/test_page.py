"""The page as a file: it stands alone, trusts no text, and says everything it has to."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from sfumato.errors import DataError
from sfumato.report import write_report
from tests.report import fake_run
from tests.report.conftest import ODD, Page

SECTIONS = ("verdict", "runs", "training", "calibration", "confusions", "pseudo-labels", "gallery", "how")
LINKS = {"href", "src", "srcset", "action", "data", "poster", "xlink:href"}
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(params=["pair", "demo", "odd", "many", "masks"])
def any_page(request: pytest.FixtureRequest) -> Page:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Page)
    return found


def test_page_is_well_formed_and_has_every_section(any_page: Page) -> None:
    reader = Reader(any_page.text)
    assert not reader.open
    assert set(SECTIONS) <= set(reader.values("id"))
    assert reader.tags["svg"] >= 7


def test_nothing_is_fetched_and_no_script_runs(any_page: Page) -> None:
    reader = Reader(any_page.text)
    links = [(tag, key, value) for tag, key, value in reader.attributes if key in LINKS]
    assert links
    assert all(value.startswith(("#", "data:image/png;base64,")) for _, _, value in links)
    assert not {"script", "iframe", "link", "object", "base"} & set(reader.tags)
    assert not [key for _, key, _ in reader.attributes if key.startswith("on")]
    style = any_page.text.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", any_page.text))
    if any_page.folder.name != "odd":  # whose classes are named so
        assert "http:" not in any_page.text
        assert "https:" not in any_page.text


def test_ids_are_unique_and_references_resolve(any_page: Page) -> None:
    reader = Reader(any_page.text)
    ids = Counter(reader.values("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    references = set(re.findall(r"url\(#([^)]*)\)", any_page.text))
    references |= {value[1:] for value in reader.values("href") if value.startswith("#")}
    assert len(references) > 20
    assert references <= set(ids)


def test_file_stays_small(any_page: Page) -> None:
    assert any_page.path.stat().st_size < 2_000_000


def test_photos_stay_small(tmp_path: Path) -> None:
    """The worst case for PNG: 24 large images of noise."""
    rng = np.random.default_rng(0)
    folder = fake_run.write_run(tmp_path / "run", fake_run.FIXMATCH, n=200)
    out = write_report(folder, images=lambda rows: rng.integers(0, 256, (len(rows), 3, 300, 500), dtype=np.uint8))
    assert out.stat().st_size < 2_000_000


def test_text_is_escaped(odd: Page) -> None:
    assert "<b>bold</b>" not in odd.text
    reader = Reader(odd.text)
    for name in ODD:
        assert name in reader.said
    assert "$x_1$ & co" in "".join(re.findall(r"<svg.*?</svg>", odd.text, re.DOTALL)).replace("&amp;", "&")


def test_text_from_files_is_escaped(tmp_path: Path) -> None:
    folder = fake_run.write_pair(tmp_path / "<i>run</i>")
    evil = "<script>alert(1)</script>"
    verdict = json.loads((folder / "verdict.json").read_text())
    (folder / "verdict.json").write_text(json.dumps(verdict | {"sentence": f"{evil} use `--labels`"}))
    (folder / "config.yaml").write_text(f"name: '{evil}'\ndata:\n  source: '{evil}'\n")
    (folder / "environment.json").write_text(json.dumps({"command": ["sfumato", "train", evil], "host": evil}))
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(
        json.dumps(metrics | {"warnings": [evil], "collapse": {"step": 3, "reason": evil}})
    )
    text = write_report(folder).read_text()
    assert "<script" not in text
    assert "<i>run" not in text
    assert text.count("&lt;script&gt;alert(1)") >= 6
    assert "<code>--labels</code>" in text


@pytest.mark.parametrize(
    ("answer", "headline", "colour"),
    [
        ("helps", "The unlabelled images help.", "helps"),
        ("no difference", "The unlabelled images make no difference.", "same"),
        ("hurts", "The unlabelled images hurt.", "hurts"),
        ("cannot tell", "Too early to tell whether the unlabelled images help.", "unknown"),
    ],
)
def test_verdict_is_the_hero(tmp_path: Path, answer: str, headline: str, colour: str) -> None:
    folder = fake_run.write_run(tmp_path / "run", fake_run.FIXMATCH, n=100)
    fake_run.write_verdict(folder, answer, -0.031, 0.022)
    text = write_report(folder).read_text()
    assert f"<h1>{headline}</h1>" in text
    assert f'class="hero" style="--tone: var(--{colour})"' in text
    assert text.index("<h1>") < text.index("<h2>")
    assert json.loads((folder / "verdict.json").read_text())["sentence"] in text
    for part in ("−3.1", "−5.3", "−0.9", 'class="bar"', "95\u202f% interval"):
        assert part in text


def test_interval_is_drawn_where_it_lies(pair: Page) -> None:
    def place(name: str) -> tuple[float, float]:
        found = re.search(rf'class="{name}" style="left: ([\d.]+)%(?:; width: ([\d.]+)%)?', pair.text)
        assert found
        return float(found[1]), float(found[2] or 0)

    (zero, _), (low, width), (dot, _) = place("zero"), place("bar"), place("dot")
    assert 0 < zero < low < dot < low + width < 100
    assert dot == pytest.approx(low + width / 2, abs=0.02)
    # 0 and 3.9 are 3.9 apart, the ends 4.2
    assert (low - zero) / width == pytest.approx(3.9 / 4.2, abs=0.01)


def test_collapse_and_warnings_stand_before_the_runs(tmp_path: Path) -> None:
    folder = fake_run.write_pair(tmp_path / "run", fake_run.COLLAPSED)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 650, "warning": "one class takes every pseudo-label"}) + "\n")
    splits = json.loads((folder / "splits.json").read_text())
    (folder / "splits.json").write_text(json.dumps(splits | {"notes": ["2 images are in no class"]}))
    text = write_report(folder).read_text()
    start = text.index('id="runs"')
    for part in ("Training of fixmatch collapsed at step 600.", "fell from 0.78 to 0.31"):
        assert 0 < text.index(part) < start
    for part in ("fixmatch: one class takes every pseudo-label", "2 images are in no class"):
        assert 0 < text.index(part) < start


def test_table_has_baseline_beside_method(pair: Page) -> None:
    table = pair.text.split('<table class="runs">')[1].split("</table>")[0]
    rows = re.findall(r"<tr class.*?</tr>", table, re.DOTALL)
    assert [re.search(r'class="name">(\w+)', row)[1] for row in rows] == ["fixmatch", "supervised_strong"]  # type: ignore[index]
    metrics = json.loads((pair.folder / "metrics.json").read_text())
    for key, held in (("Accuracy", metrics["test"]["acc"]), ("ECE after T", metrics["test_calibrated"]["ece"])):
        assert f'data-column="{key}">{100 * held:.1f}\u202f%' in rows[0]
    assert f'data-column="NLL">{metrics["test"]["nll"]:.2f}' in rows[0]
    assert "baseline" in rows[1]


def test_other_networks_are_told_apart(pair: Page) -> None:
    metrics = json.loads((pair.folder / "metrics.json").read_text())
    best, student = (100 * metrics[which]["test"]["acc"] for which in ("best", "student"))
    assert f"reaches {best:.1f}\u202f%." in pair.text
    assert f"the last weights themselves reach {student:.1f}\u202f%." in pair.text


def test_seeds_are_averaged(demo: Page) -> None:
    table = json.loads((demo.folder / "table.json").read_text())
    assert len(table["rows"]) == 5
    for row in table["rows"]:
        mean, sd = np.mean(row["score"]), np.std(row["score"], ddof=1)
        assert f"{100 * mean:.1f} ± {100 * sd:.1f}\u202f%" in demo.text
    order = [demo.text.index(f'class="name">{row["method"]}') for row in table["rows"]]
    assert order == sorted(order)
    assert "uncertainty_weighted_flat against supervised_strong" in demo.text
    assert "sfumato demo --seeds 0:3" in demo.text


def test_matrix_up_to_twenty_classes_else_pairs(tmp_path: Path, many: Page) -> None:
    for classes in (2, 20, 21):
        names = [f"class {place}" for place in range(classes)]
        folder = fake_run.write_run(tmp_path / str(classes), fake_run.SUPERVISED, classes=names, n=210)
        text = write_report(folder).read_text()
        assert ('class="matrix' in text) == (classes <= 20)
        assert ("The most confused pairs of" in text) == (classes > 20)
    assert "The most confused pairs of 1000 classes." in many.text
    assert "960 more are not shown" in many.text


def test_gallery_shows_the_right_images(pair: Page) -> None:
    with np.load(pair.folder / "predictions" / "test.npz") as held:
        logits, labels, names = held["logits"], held["labels"], held["names"]
    wrong = logits.argmax(1) != labels
    gallery = pair.text.split('id="gallery"')[1].split("</section>")[0]
    mistakes, doubts = gallery.split("Most uncertain")
    shown = re.findall(r'class="file" title="([^"]*)"', mistakes)
    assert len(shown) == 12
    assert set(shown) <= set(names[wrong])
    assert len(re.findall(r'<img class="pixels" src="data:image/png;base64,', gallery)) == 24
    assert "rightly" in doubts


def test_two_renders_are_the_same_bytes(pair: Page, tmp_path: Path) -> None:
    again = write_report(pair.folder, tmp_path / "deep" / "again.html", images=fake_run.images)
    assert again.read_bytes() == pair.path.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["again.html"]


def test_default_place_is_the_run_folder(pair: Page) -> None:
    assert pair.path == pair.folder / "report.html"


def test_settings_of_the_user_do_not_matter(pair: Page, tmp_path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"text.usetex": True, "axes.facecolor": "red", "font.size": 30}):
        again = write_report(pair.folder, tmp_path / "again.html", images=fake_run.images)
        assert matplotlib.rcParams["font.size"] == 30
    assert again.read_bytes() == pair.path.read_bytes()


def test_wrong_images_are_refused(pair: Page, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(12, channels, H, W\), found float64 \(12, 3\)"):
        write_report(pair.folder, tmp_path / "x.html", images=lambda rows: np.zeros((len(rows), 3)))  # type: ignore[arg-type]
    assert not (tmp_path / "x.html").exists()
