"""How the documentation is built: pages in Markdown, the reference from docstrings. `make docs` makes it, strictly."""

import re
from typing import Any

from atmanrl import __version__

project = "AtManRL"
copyright = "the AtManRL authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_mock_imports = ["wandb"]
# docstrings are plain text with Markdown's single backquotes
default_role = "code"
napoleon_google_docstring, napoleon_numpy_docstring = True, False

html_theme = "furo"
html_title = "AtManRL"
html_static_path: list[str] = []


def bars_are_text(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let `|c|` be an absolute value outside of code, where reStructuredText sees a substitution."""
    for number, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[number] = "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def setup(app: Any) -> None:
    """Register what Sphinx calls."""
    app.connect("autodoc-process-docstring", bars_are_text)
