"""The site, made by make docs: pages of this folder, docstrings, and the notebooks as they are."""

import shutil
from pathlib import Path

import nbformat

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
extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx.ext.napoleon", "myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pyrovae"
nb_execution_mode = "off"  # make notebooks runs them
myst_enable_extensions = ["dollarmath"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
