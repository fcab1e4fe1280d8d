"""What a run folder holds, and how it is loaded again.

A finished run of the main job has these files, beside `manifest.json`, see `Folder`:

    config.yaml             every option that decides the numbers; notes as comments above
    metrics.jsonl           a JSON object a line, one an epoch: "epoch", "elbo", "valid_elbo" (nats
                            per datum), "criterion" (likewise, where one is asked for),
                            "grad_norm", "seconds"
    model.safetensors       what was learned, see `pyrovae.runs.saving`
    checkpoint.safetensors  the state that training goes on from, see `read_checkpoint`
    evidence.nc             estimates of each datum, see `pyrovae.evidence.stored`
    evidence.csv            the same as a table, a datum a row
    figures/<name>.png      pictures of training, model and evidence
    report.html             the page, one file
    latent.csv              of python -m pyrovae latent: the codes of test data, a datum a row
    blocks/<key>/<name>.safetensors
                            finished blocks of an evaluation that has not come to its end
"""

__all__ = [
    "CHECKPOINT",
    "EVIDENCE",
    "EVIDENCE_FILES",
    "LATENT_FILES",
    "REPORT",
    "RUN_FILES",
    "TABLE",
    "clear",
    "drop_blocks",
    "drop_evidence",
    "holds_run",
    "load_evidence",
    "write_comparison",
    "write_evidence",
    "write_figures",
    "write_latent",
]

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pyrovae import plots, storage
from pyrovae.arrays import said
from pyrovae.data import Splits
from pyrovae.data.rows import Rows
from pyrovae.evidence.comparison import Comparison
from pyrovae.evidence.results import Evidence
from pyrovae.labelled import read_dataset
from pyrovae.models.base import Model
from pyrovae.plots.figures import Figure
from pyrovae.runs import pictures
from pyrovae.runs.blocks import BLOCKS
from pyrovae.runs.config import CONFIG, METRICS
from pyrovae.runs.folder import Folder
from pyrovae.runs.saving import MODEL
from pyrovae.svi.training import Fit

CHECKPOINT, EVIDENCE, FIGURES = "checkpoint.safetensors", "evidence.nc", "figures"
TABLE, REPORT, LATENT = "evidence.csv", "report.html", "latent.csv"
OF_EVIDENCE = "evidence", "histogram", "khat_importance", "khat_prior", "two_estimates", "extremes"
OF_EVIDENCE += ("intervals",)
OF_MODEL = "training", "reconstructions", "samples", "latent_space", "manifold"  # pictures
OF_LATENT = "latent_kl", "latent_components", "traversals", "interpolation", "z_dim", "beta"
OF_LATENT += ("rate_distortion",)


def _picture(name: str) -> str:
    """Returns the name of a picture's file in a run folder, such as "figures/evidence.png"."""
    return f"{FIGURES}/{name}.png"


EVIDENCE_FILES = EVIDENCE, TABLE, REPORT, *map(_picture, OF_EVIDENCE)  # made of one evidence
LATENT_FILES = LATENT, *map(_picture, OF_LATENT)  # of python -m pyrovae latent
RUN_FILES = CONFIG, METRICS, MODEL, CHECKPOINT, *map(_picture, OF_MODEL), *EVIDENCE_FILES
RUN_FILES += LATENT_FILES


def holds_run(folder: Folder) -> bool:
    """Returns whether a folder has files of a run in it, and ours; a model alone is worth it.

    Args:
        folder: That `worked_in` gave.
    """
    return any(name in folder for name in (CONFIG, METRICS, MODEL, CHECKPOINT, EVIDENCE))


def clear(folder: Folder) -> None:
    """Removes the files of a run from a folder, and nothing else; makes room for another's.

    Args:
        folder: That `worked_in` gave; from now on its list has all that a run writes.

    Raises:
        ValueError: If a file of that name is there and not ours.
    """
    drop_blocks(folder)
    folder.remove(RUN_FILES)
    folder.claim(RUN_FILES)


def drop_blocks(folder: Folder) -> None:
    """Removes the blocks of all evaluations, whatever their keys.

    Args:
        folder: That `worked_in` gave.
    """
    folder.remove([name for name in folder.names if name.startswith(f"{BLOCKS}/")])


def drop_evidence(folder: Folder) -> None:
    """Removes evidence with all that was made of it: before other evidence takes its place.

    So a page or a picture never stands beside numbers that it does not show.

    Args:
        folder: That `worked_in` gave.

    Raises:
        ValueError: If a file of such a name is there and not ours.
    """
    folder.remove(EVIDENCE_FILES)
    folder.claim(EVIDENCE_FILES)


def load_evidence(folder: Path) -> Evidence:
    """Returns the evidence of a run folder.

    Args:
        folder: Of the run.

    Raises:
        StateError: If it has no `evidence.nc`, or one that is broken, altered or of another kind.
    """
    path = folder / EVIDENCE
    try:
        return Evidence.from_xarray(read_dataset(path))
    except Exception as e:  # whatever the libraries make of broken files
        why = f"cannot be read ({said(e)})" if path.exists() else "is not there"
        raise storage.StateError(
            f"{path} {why}; python -m pyrovae.evidence {folder} makes it"
        ) from e


def write_evidence(
    folder: Folder, evidence: Evidence, x: Tensor | Rows, shape: tuple[int, int] | None
) -> None:
    """Writes `evidence.nc`, `evidence.csv` and their pictures, with those of the extreme data.

    What other evidence left there is removed first, the report with it.

    Args:
        folder: That `worked_in` gave.
        evidence: Of all rows of x.
        x: The data, `(N, D)`.
        shape: Height and width of an image, H W = D; `None` where the data are none.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If one of that name is there and not ours.
    """
    drop_evidence(folder)
    storage.write_dataset(folder.path / EVIDENCE, evidence.to_xarray())
    storage.write_lines(folder.path / TABLE, evidence.to_csv())
    for name, figure in pictures.of_evidence(evidence, x, shape).items():
        plots.save(figure, folder.path / _picture(name))


def write_latent(folder: Folder, lines: Iterable[str], figures: Mapping[str, Figure]) -> None:
    """Writes `latent.csv` and the pictures of a latent space; what was there of others goes first.

    Args:
        folder: That `worked_in` gave.
        lines: Of the table.
        figures: By name.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If one of that name is there and not ours.
    """
    folder.remove(LATENT_FILES)
    folder.claim(LATENT_FILES)
    storage.write_lines(folder.path / LATENT, lines)
    for name, figure in figures.items():
        plots.save(figure, folder.path / _picture(name))


def write_comparison(folder: Folder, found: Comparison, page: str) -> None:
    """Writes `comparison.csv`, `comparison.png` and `comparison.html`.

    Args:
        folder: That `worked_in` gave.
        found: Of two models.
        page: Of HTML, with nothing from elsewhere.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If one of that name is there and not ours.
    """
    table, picture, whole = (f"comparison.{kind}" for kind in ("csv", "png", "html"))
    folder.claim([table, picture, whole])
    storage.write_lines(folder.path / table, found.to_csv())
    plots.save(plots.differences(found), folder.path / picture)
    storage.write_lines(folder.path / whole, [page])


def write_figures(
    folder: Path,
    model: Model | None,
    splits: Splits,
    fit: Fit,
    evidence: Evidence,
    device: str | torch.device | None = None,
) -> None:
    """Writes the pictures of a run into its `figures/`, those that its model can give.

    Args:
        folder: Of the run.
        model: What was trained; `None` of a program, of which only training and evidence are
            drawn.
        splits: Its data, of which the test data are shown.
        fit: Its training: ELBOs by epoch, nats per datum.
        evidence: Of the test data.
        device: Where the model is; `None` for the data's own.

    Raises:
        OSError: If a file cannot be written.
    """
    history = {"elbo": fit.elbo, "valid_elbo": fit.valid_elbo, "criterion": fit.criterion}
    for name, figure in pictures.of_run(model, splits, history, evidence, device).items():
        plots.save(figure, folder / _picture(name))
