"""The site: ``make docs``. It fetches nothing, neither when it is built nor when it is read."""

from __future__ import annotations

import sys
from pathlib import Path

import conformance

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "ROCm attention conformance"
project_copyright = "Apache License 2.0"
release = conformance.__version__

extensions = ["myst_parser", "sphinx_click", "commands", "floors", "formulas", "schema_tables"]
exclude_patterns = ["_extensions"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nitpicky = True
smartquotes = False  # two hyphens stay two hyphens

html_theme = "furo"
html_title = project
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
templates_path: list[str] = []
