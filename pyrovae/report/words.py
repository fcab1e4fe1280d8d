"""What the page of a run says in words."""

__all__ = ["commands", "number", "title", "trained"]

import json
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from shlex import quote

from pyrovae import runs
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Model
from pyrovae.plots.figures import signed
from pyrovae.registry import is_path


def title(model: Model | None, config: Mapping[str, object]) -> str:
    """Returns data and model, as the page is headed: "mnist, VAE with 50 latent dimensions".

    Args:
        model: What was trained; `None` of a program.
        config: The run's options.
    """
    what = config.get("program")
    if model:
        what = type(model).__name__
        if z_dim := model.config().get("z_dim"):
            what += f" with {_count(z_dim, 'latent dimension')}"
    parts = Path(str(config.get("data", ""))).name, what
    return ", ".join(str(part) for part in parts if part)


def trained(
    model: Model | None,
    shape: tuple[int, int] | None,
    protocol: Mapping[str, object],
    history: Mapping[str, Sequence[float]],
    config: Mapping[str, object],
) -> str:
    """Returns what was trained on what, in a sentence.

    Args:
        model: What was trained; `None` of a program.
        shape: Height and width of a datum; `None` where data are no images.
        protocol: Of the evidence: how many rows were trained on, and validated.
        history: ELBOs of training, by name, a value an epoch.
        config: The run's options.
    """
    what = f"The program {config.get('program')}"
    if model:
        what = _model(model, shape)
    data = str(config.get("data", "data"))
    if (binarize := config.get("binarize", "none")) != "none":
        data += f" ({binarize} binarization)"
    rows = {part: int(str(protocol.get(f"rows_{part}") or 0)) for part in ("train", "valid")}
    of = f"{_count(rows['train'], 'row')} of " if rows["train"] else ""
    text = f"{what}, trained on {of}{data}"
    if epochs := len(history.get("elbo", ())):
        text += f" for {_count(epochs, 'epoch')}"
    if (objective := config.get("objective", "elbo")) != "elbo":
        text += f" with the objective {objective}"
    if rows["valid"]:
        text += f", validated on {rows['valid']:,}; epoch {runs.best_epoch(history)} was kept"
    if criterion := config.get("criterion"):
        few = min(rows["valid"], int(str(config.get("criterion_rows"))))
        text += f" by {criterion} of the first {few:,}"
    if ema := config.get("ema"):
        text += f", parameters averaged by {ema}"
    return f"{text}."


def _model(model: Model, shape: tuple[int, int] | None) -> str:
    """Returns what a model is, by its class and its configuration.

    Of the configuration only names that mean the same in all models are read, such as "z_dim"; a
    model that has none of them is told of by its number of parameters alone.

    Args:
        model: What was trained.
        shape: Height and width of a datum, or `None`.
    """
    config = model.config()
    of = ""
    if x_dim := config.get("image_shape", config.get("x_dim")):
        x_dim = prod(x_dim) if isinstance(x_dim, list) else x_dim
        size = f" ({shape[0]} × {shape[1]})" if shape and shape[0] > 1 else ""
        of = f" of {_count(x_dim, 'dimension')}{size}"
    parts = []
    if widths := config.get("hidden_dims"):
        parts.append(f"hidden layers of {' and '.join(map(str, widths))} units")
    if z_dim := config.get("z_dim"):
        parts.append(_count(z_dim, "latent dimension"))
    if family := config.get("likelihood"):
        parts.append(f"a {family} likelihood")
    *first, last = [*parts, _count(sum(p.numel() for p in model.parameters()), "parameter")]
    having = f"{', '.join(first)} and {last}" if first else last
    return f"{_article(type(model).__name__)}{of} with {having}"


def _article(noun: str) -> str:
    """Returns a noun with its article: "A VAE", "An AutoEncoder"."""
    spelled = len(noun) > 1 and noun[:2].isupper()  # letter by letter: a VAE, an MLP
    return f"{'An' if noun[:1] in ('AEFHILMNORSX' if spelled else 'AEIO') else 'A'} {noun}"


def number(value: object, form: str = "") -> str:
    """Returns a number as it is read; what is none, as it is.

    Args:
        value: A number with a true minus sign, a word, or `None`, which is a dash.
        form: Of numbers, as of `format`.

    Example:
        >>> number(-1.25, ".1f"), number(None), number("ok")
        ('−1.2', '–', 'ok')
    """
    if value is None:
        return "–"
    return signed(format(value, form)) if isinstance(value, int | float) else str(value)


def _count(number: int, word: str) -> str:
    """Returns a number of things: "1 row", "2,000 rows"."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def commands(
    name: str, evidence: Evidence, config: Mapping[str, object], notes: Sequence[str]
) -> list[str]:
    """Returns the commands that make these numbers again, of a run with that configuration.

    The first trains the run again from its config.yaml. If `pyrovae.evidence` has evaluated it
    since, a second says how. Code of the user's own is named in both, as no file can name it.

    Args:
        name: Path of the run's folder.
        evidence: With its protocol.
        config: The run's options.
        notes: What the run was trained with before, which become comments.
    """
    protocol, path = evidence.protocol, quote(str(Path(name) / runs.CONFIG))
    named = _named(config, ("program", "model", "likelihood", "data"))
    lines = [*(f"# {note}" for note in notes)]
    again = _named(config, ("objective", "criterion", "estimators"))
    lines.append(f"python -m pyrovae.svi --config {path}{named}{again}")
    if rows := protocol.get("rows_chosen"):  # what pyrovae.evidence writes down
        names = ("num_particles", "tolerance", "max_particles", "num_temperatures", "num_chains")
        options = [
            f"--{n.replace('_', '-')} {quote(str(protocol[n]))}"
            for n in (*names, "seed")
            if n in protocol
        ]
        options += [f"--rows {quote(str(rows))}"] if rows != "all" else []
        estimators = protocol.get("estimators") or " ".join(evidence.estimates)
        options += [f"--estimators {estimators}", *_own_options(protocol)]
        command = f"python -m pyrovae.evidence {quote(name)}{named}"
        lines.append(" ".join([command, *options]))
    return lines


def _named(config: Mapping[str, object], options: Sequence[str]) -> str:
    """Returns the options by which a run's code of the user's own is named again.

    Args:
        config: The run's options.
        options: Names of those that may name such code.

    Returns:
        As a command line has them, each after a blank; "" where all is ours.
    """
    text = ""
    for option in options:
        names = config.get(option)
        listed = [str(n) for n in (names if isinstance(names, list) else [names]) if n]
        if any(is_path(n) or option == "program" for n in listed):
            text += f" --{option} {' '.join(map(quote, listed))}"
    return text


def _own_options(protocol: Mapping[str, object]) -> list[str]:
    """Returns the options of estimators that the record has, as a command line says them.

    Args:
        protocol: Whose "estimator_options" are JSON, options by estimator.
    """
    known = json.loads(str(protocol.get("estimator_options", "{}")))
    return [
        f"--estimators.{name}.{option} {quote(x if isinstance(x, str) else json.dumps(x))}"
        for name, options in known.items()
        for option, x in options.items()
    ]
