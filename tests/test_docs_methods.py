"""docs/methods.md: what it says of the pages of methods and add-ons, and of the marks on them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato import addons, methods

DOCS = Path(__file__).resolve().parents[1] / "docs"
NAMES = [*methods.METHODS, *addons.ADDONS]
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)
WRITE = """
import json, sys
sys.path.insert(0, sys.argv[1])
from generated_pages import METHODS, addon_page, addons, method_page
pages = {name: method_page(name) for name in METHODS} | {name: addon_page(name) for name in addons.ADDONS}
print(json.dumps(pages))
"""


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """As `make docs` writes them; in a process of its own, so that its path does not become ours."""
    pytest.importorskip("sphinx")
    command = [sys.executable, "-c", WRITE, str(DOCS / "_ext")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_the_claim_stands_on_the_page():
    assert "Each has a page with its formulas, its options and a picture" in (DOCS / "methods.md").read_text("utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_each_page_has_its_formulas(name, pages):
    blocks = re.findall(r"^```text\n(.*?)^```", pages[name], re.MULTILINE | re.DOTALL)
    # An equation, an update, a minimum, or the numbered steps of a method that trains in rounds.
    assert any(re.search(r" = | <- | min |^ *1\. ", block, re.MULTILINE) for block in blocks), "no formula in the head"


@pytest.mark.parametrize("name", NAMES)
def test_each_page_says_what_every_option_means(name, pages):
    table = addons if name in addons.ADDONS else methods
    defaults = table.describe(name).defaults
    rows = dict(ROW.findall(pages[name]))
    assert list(rows) == list(defaults)
    for option, row in rows.items():
        cells = re.split(r"(?<!\\) \| ", row)
        assert len(cells) == 3, f"{option} has no meaning: name it below `Args:` of the builder"
        assert cells[-1].strip(), f"{option} has no meaning: name it below `Args:` of the builder"


@pytest.mark.parametrize("name", methods.METHODS)
def test_each_page_of_a_method_has_a_picture(name, pages):
    assert "<svg" in pages[name]


def test_a_page_of_fixed_options_says_so_and_has_the_formulas(pages):
    page = pages["csl_robust"]
    assert "[csl](csl.md) with `split=pc1`" in page
    assert "singular vectors" in page
    assert methods.describe("csl_robust").summary.startswith("csl with split=pc1, features=sqrt")


def test_no_page_shows_the_python_of_a_type(pages):
    assert not [name for name, page in pages.items() if "typing." in page]


def test_pages_say_whose_a_value_is(pages):
    assert "- As printed: `apm_decay=eq5`\n" in pages["calibratemix"]
    assert "`share=beta_group`, `similarity=pixel`, `count=15`" in pages["calibratemix"]
    assert "- USB: `target=hard`\n" in pages["abc"]
