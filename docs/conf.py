"""Settings of the documentation: `sphinx-build -W -b html docs docs/_build/html`.

Formulas become MathML while the pages are built, with the converter that docutils
carries. The usual renderer fetches MathJax from a content network each time a page
is opened; these pages load nothing from anywhere, and read the same offline.
"""

import sys
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # the pages describe this checkout

_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = _PROJECT["name"]
author = _PROJECT["authors"][0]["name"]
copyright = f"2026, {author}"
release = version = _PROJECT["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
math_numfig = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_use_ivar = True  # fields are listed once, in the class's own docstring
napoleon_use_rtype = False
default_role = "literal"  # docstrings write `code` with single backticks

html_theme = "furo"
html_title = f"{project} {version}"
html_math_renderer = "mathml"
html_copy_source = False

_log = logging.getLogger(__name__)


def _mathml(self: HTML5Translator, node: nodes.Element, *, block: bool) -> str:
    """The formula as MathML; one that cannot be converted stops a `-W` build."""
    source = node.astext()
    try:
        return tex2mathml(source, as_block=block)
    except MathError as error:
        _log.warning("no MathML for %r: %s", source, error, location=node)
        return f"<code>{self.encode(source)}</code>"


def visit_math(self: HTML5Translator, node: nodes.math) -> None:
    """A formula in a sentence."""
    self.body.append(_mathml(self, node, block=False))
    raise nodes.SkipNode


def visit_displaymath(self: HTML5Translator, node: nodes.math_block) -> None:
    """A formula on lines of its own; wide ones scroll instead of running over."""
    self.body.append('<div class="math" style="overflow-x: auto">')
    self.body.append(_mathml(self, node, block=True))
    self.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the renderer that `html_math_renderer` names."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
