"""Sphinx configuration. `make docs` builds with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import sfumato

project = "sfumato"
author = "the sfumato developers"
copyright = "the sfumato developers"
version = release = sfumato.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "generated_pages",
    "markdown_docstrings",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext", "_generated/*.md"]

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_inherit_docstrings = False
add_module_names = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries = False  # with every object in the menu of every page the build takes twice as long

smartquotes = False  # quotation marks in the texts are code
html_theme = "furo"
html_title = "sfumato"
