"""Runs notebooks anew and writes their outputs into them: python notebooks/run.py A.ipynb ..."""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

for path in map(Path, sys.argv[1:]):
    start = time.perf_counter()
    notebook = nbformat.read(path, 4)
    client = NotebookClient(
        notebook,
        record_timing=False,  # the time of day is no part of the result
        coalesce_streams=True,
        resources={"metadata": {"path": path.parent}},
    )
    client.execute()
    notebook.metadata.pop("language_info", None)  # would change with the version of Python
    nbformat.write(notebook, path)
    print(f"{path}: {time.perf_counter() - start:.0f} s, {path.stat().st_size / 1e3:.0f} KB")
