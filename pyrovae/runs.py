"""What a run folder holds, and how it is loaded again."""

__all__ = [
    "CHECKPOINT",
    "CONFIG",
    "MODEL",
    "clear",
    "holds_run",
    "load",
    "save",
    "write_config",
    "write_figures",
    "write_metrics",
]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from pyrovae import plots, storage
from pyrovae.data import Splits
from pyrovae.models.vae import VAE
from pyrovae.rng import seeded

CONFIG, METRICS, MODEL = "config.yaml", "metrics.jsonl", "model.safetensors"
CHECKPOINT, EVIDENCE, FIGURES = "checkpoint.safetensors", "evidence.nc", "figures"


def save(vae: VAE, folder: str | Path, **facts: Any) -> None:
    """Writes a VAE into a folder as `model.safetensors`, atomically and without pickle.

    Args:
        vae: The model.
        folder: Made if it does not exist.
        facts: JSON values that `load` ignores, such as the epoch.
    """
    state = {"class": "VAE", "config": vae.config(), "weights": vae.state_dict(), "facts": facts}
    storage.save_state(Path(folder) / MODEL, state)


def load(folder: str | Path) -> VAE:
    """Returns the VAE of a folder that `save` or the main job wrote, in `eval()` mode.

    Raises:
        StateError: (a `ValueError`) If there is no such file, it is truncated or not ours.
        ValueError: If its likelihood is a class that has not been imported.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(VAE(x_dim=4, z_dim=2), folder)
        ...     load(folder).z_dim
        2
    """
    path = Path(folder) / MODEL
    state = storage.load_state(path)
    if state.get("class") != "VAE":
        raise storage.StateError(f"{path} holds {state.get('class', 'no model')!r}, not a VAE")
    with seeded(0):
        vae = VAE.from_config(state["config"])
    vae.load_state_dict(state["weights"])
    return vae.eval()


def holds_run(folder: Path) -> bool:
    """Returns whether a folder has files of a run in it."""
    return any((folder / name).exists() for name in (CONFIG, METRICS, MODEL, CHECKPOINT, EVIDENCE))


def clear(folder: Path) -> None:
    """Removes the files of a run from a folder, and nothing else."""
    for name in (CONFIG, METRICS, MODEL, CHECKPOINT, EVIDENCE):
        (folder / name).unlink(missing_ok=True)
    for picture in (folder / FIGURES).glob("*.png"):
        picture.unlink()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes `config.yaml`: every option that decides the numbers, resolved."""
    storage.write_lines(folder / CONFIG, [yaml.safe_dump(dict(config), sort_keys=False).rstrip()])


def write_metrics(folder: Path, history: Mapping[str, Any]) -> None:
    """Writes `metrics.jsonl`, a line an epoch: ELBOs in nats per datum, wall time in seconds."""
    columns = {k: history[k] for k in ("elbo", "valid_elbo", "seconds") if history[k]}
    lines = (
        json.dumps({"epoch": i + 1, **dict(zip(columns, row, strict=True))})
        for i, row in enumerate(zip(*columns.values(), strict=True))
    )
    storage.write_lines(folder / METRICS, lines)


@torch.no_grad()
def write_figures(
    folder: Path, vae: VAE, splits: Splits, fit: Any, evidence: Any, device: Any = None
) -> None:
    """Writes the pictures of a run into its `figures/`."""
    test = splits.test
    x = test.x[:12].to(device)
    figures = {
        "training": plots.training(fit.elbo, fit.valid_elbo, fit.best_epoch),
        "evidence": plots.convergence(evidence),
        "latent_space": plots.latent_space(vae.encode(test.x.to(device)).mean, test.y),
    }
    if shape := splits.image_shape:
        with seeded(0):
            z = vae.prior(x.new_empty(36, 0)).sample()
        means = vae.decode(z).mean
        figures["reconstructions"] = plots.images(
            [x, vae.reconstruct(x)], ["X", "E[X|z]"], shape, "Test data and their reconstructions"
        )
        figures["samples"] = plots.images(
            list(means.split(12)), [""] * 3, shape, "E[X|z] for z from the prior"
        )
        if vae.z_dim == 2:
            figures["manifold"] = plots.manifold(lambda z: vae.decode(z.to(device)), shape)
    for name, figure in figures.items():
        plots.save(figure, folder / FIGURES / f"{name}.png")
