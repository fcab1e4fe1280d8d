"""The site, made by make docs: pages of this folder, docstrings, and the notebooks as they are."""

import re
import shutil
from pathlib import Path

import nbformat
from docutils import nodes
from latex2mathml.converter import convert
from sphinx.errors import ExtensionError

import pyrovae

HERE = Path(__file__).parent
shutil.copytree(
    HERE.parent / "notebooks",
    HERE / "notebooks",
    ignore=shutil.ignore_patterns("*.py", ".*"),
    dirs_exist_ok=True,
)

# pictures of the guides, taken from the notebooks as they are
PICTURES = {
    "dimensions": ("03_three_ways_to_log_p", "Naive sampling dies"),
    "sandwich": ("04_how_far_to_trust_it", "the sandwich closes"),
}
for name, (notebook, title) in PICTURES.items():
    cells = nbformat.read(HERE.parent / "notebooks" / f"{notebook}.ipynb", 4).cells
    [outputs] = [c.outputs for c in cells if c.cell_type == "code" and title in c.source]
    [svg] = [o.data["image/svg+xml"] for o in outputs if "image/svg+xml" in o.get("data", {})]
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")

project = "pyrovae"
version = release = pyrovae.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pyrovae"
nb_execution_mode = "off"  # make notebooks runs them
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"

html_math_renderer = "mathml"

# what the converter takes for letters
CORRECTED = {
    "<mi>&#x0007E;</mi>": "<mo>&#x0223C;</mo>",
    "<mi>&#x00045;</mi>": '<mi mathvariant="normal">E</mi>',
    "<mi>log</mi>": '<mo form="prefix" lspace="0.17em" rspace="0.17em">log</mo>',
}
ELSEWHERE = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)="(?:https?:)?//')


def visit_math(self, node):
    """Writes a formula as MathML, which browsers draw without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    formula = convert(node.astext(), display=display)
    for wrong, right in CORRECTED.items():
        formula = formula.replace(wrong, right)
    if "\\" in formula:
        raise ExtensionError(f"there is a command that latex2mathml does not know: {formula}")
    self.body.append(formula)
    raise nodes.SkipNode


def check_nothing_from_elsewhere(app, exception):
    """Raises ExtensionError where a page that was built asks another server for anything."""
    pages = [] if exception else sorted(Path(app.outdir).rglob("*.html"))
    for page in pages:
        if found := ELSEWHERE.search(page.read_text(encoding="utf-8")):
            raise ExtensionError(f"{page} asks another server: {found.group()}")


def setup(app):
    """Sets up how formulas are written, and the check of the site."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("build-finished", check_nothing_from_elsewhere)
