"""What the page of a run says in words."""

__all__ = ["CAPTIONS", "commands", "number", "title", "trained"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from pyrovae import runs
from pyrovae.evidence.results import Evidence
from pyrovae.models.vae import VAE
from pyrovae.plots.curves import signed

CAPTIONS = {
    "evidence": "Estimates against the number of draws: flat is done, rising is not.",
    "training": "The lower bound that SVI raises.",
    "reconstructions": "Test data, and what P(X|z) makes of the mean of Q(z|X).",
    "samples": "E[X|z] for z from the prior: no encoder takes part.",
    "program": "The program, from what running it shows: what is observed is shaded, dots are "
    "parameters, the plate says N times.",
}


def title(vae: VAE | None, config: Mapping[str, Any]) -> str:
    """Returns data and model, as the page is headed."""
    model = f"VAE with {_count(vae.z_dim, 'latent dimension')}" if vae else config.get("program")
    return ", ".join(filter(None, [Path(config.get("data", "")).name, model]))


def trained(
    vae: VAE | None,
    shape: tuple[int, int] | None,
    protocol: Mapping[str, Any],
    history: Mapping[str, list[float]],
    config: Mapping[str, Any],
) -> str:
    """Returns what was trained on what, in a sentence."""
    what = f"The program {config.get('program')}"
    if vae:
        size = f" ({shape[0]} × {shape[1]})" if shape and shape[0] > 1 else ""
        widths = " and ".join(map(str, vae.hidden_dims))
        what = (
            f"A VAE of {_count(vae.x_dim, 'dimension')}{size} with "
            + (f"hidden layers of {widths} units, " if widths else "")
            + f"{_count(vae.z_dim, 'latent dimension')}, a {vae.likelihood.name} likelihood and "
            f"{_count(sum(p.numel() for p in vae.parameters()), 'parameter')}"
        )
    data = config.get("data", "data")
    if (binarize := config.get("binarize", "none")) != "none":
        data += f" ({binarize} binarization)"
    rows = {part: protocol.get(f"rows_{part}") for part in ("train", "valid")}
    of = f"{_count(rows['train'], 'row')} of " if rows["train"] else ""
    text = f"{what}, trained on {of}{data}"
    if epochs := len(history.get("elbo", ())):
        text += f" for {_count(epochs, 'epoch')}"
    if rows["valid"]:
        text += f", validated on {rows['valid']:,}; epoch {runs.best_epoch(history)} was kept"
    return f"{text}."


def number(value: Any, form: str = "") -> str:
    """Returns a number as it is read; what is none, as it is."""
    if value is None:
        return "–"
    return signed(format(value, form)) if isinstance(value, int | float) else str(value)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'s' * (number != 1)}"


def commands(
    name: str, evidence: Evidence, program: str | None, notes: Sequence[str]
) -> list[str]:
    """Returns the commands that make these numbers again."""
    protocol, config = evidence.protocol, quote(str(Path(name) / runs.CONFIG))
    named = f" --program {quote(program)}" if program else ""
    lines = [*(f"# {note}" for note in notes)]
    lines.append(f"python -m pyrovae.svi --config {config}{named}")
    if rows := protocol.get("rows_chosen"):  # what pyrovae.evidence writes down
        names = ("num_particles", "tolerance", "max_particles", "num_temperatures", "num_chains")
        options = [
            f"--{n.replace('_', '-')} {quote(str(protocol[n]))}"
            for n in (*names, "seed")
            if n in protocol
        ]
        options += [f"--rows {quote(str(rows))}"] if rows != "all" else []
        chosen_names = "--estimators " + " ".join(evidence.estimates)
        command = f"python -m pyrovae.evidence {quote(name)}{named}"
        lines.append(" ".join([command, *options, chosen_names]))
    return lines
