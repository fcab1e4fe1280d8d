"""One HTML page of a run: opens from disk, with nothing from elsewhere."""

__all__ = ["render", "write"]

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import date
from io import BytesIO
from math import ceil, isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader
from PIL import Image
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from pyrovae import plots, runs, storage
from pyrovae.data import Split, Splits
from pyrovae.data.rows import chosen
from pyrovae.evidence.estimate import Estimate
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Decodes, Encodes, HasPrior, Model
from pyrovae.plots.figures import signed
from pyrovae.program import inspect
from pyrovae.report import words
from pyrovae.runs.saving import Pair

POINTS = 2_000  # drawn in the explorer, at most
DECODED = 800_000  # numbers in the explorer's images of a plane, at most
TILES = 41  # of them along a side, at most
ROWS = 15_000  # of the table, at most
THUMBNAILS = 2_000_000  # characters of their pictures, at most
DIGITS = {"log p(x)": 3, "s.e.": 4, "ELBO": 3, "ESS": 1, "k-hat": 2}


def write(
    folder: str | Path,
    *,
    root: str | None = None,
    splits: Splits | None = None,
    program: Pair | None = None,
) -> Path:
    """Writes `report.html` into a run folder, from what lies in it and its test data.

    Args:
        folder: Of a run, with its evidence.
        root: Folder of the named data sets, if they are no longer where they were.
        splits: The run's data, where they are at hand; `None` loads them.
        program: The (model, guide) of a run of a program, for its diagram; the page goes without
            where it is not given.

    Raises:
        StateError: If the folder holds no run with evidence, or the evidence is of another model
            or other data than the run's.
    """
    folder = Path(folder)
    run, evidence = runs.read_run(folder, program), runs.load_evidence(folder)
    config, model = run.config, run.model
    splits = splits or run.splits(root=root)
    again = f"python -m pyrovae.evidence {folder} evaluates that"
    if splits.protocol["sha256_test"] != evidence.protocol.get("sha256_test"):
        raise storage.StateError(
            f"the evidence in {folder} is of other data than the run's own test part; {again}"
        )
    if not _is_of(evidence, folder, model, splits):
        raise storage.StateError(
            f"the evidence in {folder} is of another model than the one that lies there; {again}"
        )
    rows = evidence.protocol.get("rows_chosen", "all")
    rows = None if rows == "all" else rows
    y = splits.test.y
    test = Split(
        chosen(splits.test.x, rows),
        None if y is None else chosen(y, rows)[:],
        tuple(chosen(x, rows) for x in splits.test.more),
    )
    about = splits.image_shape, evidence, runs.read_metrics(folder), config, str(folder)
    day = date.fromtimestamp((folder / runs.EVIDENCE).stat().st_mtime)
    page = render(model, test, *about, day=day, notes=runs.read_notes(folder), program=program)
    storage.write_lines(folder / runs.REPORT, [page])
    return folder / runs.REPORT


def _is_of(evidence: Evidence, folder: Path, model: Model | None, splits: Splits) -> bool:
    """Returns whether evidence is of the model in a folder, by what its protocol says."""
    if saved := evidence.protocol.get("saved_sha256"):
        return saved == runs.saved_sha256(folder)
    if model is None:
        return False
    program = inspect(model.model, model.guide, *(a[:2] for a in model.arrays(splits.test)))
    return program.sha256 == evidence.protocol.get("model_sha256")


@torch.no_grad()
def render(
    model: Model | None,
    test: Split,
    image_shape: tuple[int, int] | None,
    evidence: Evidence,
    history: Mapping[str, list[float]],
    config: Mapping[str, Any],
    name: str,
    *,
    day: date | None = None,
    notes: Sequence[str] = (),
    program: Pair | None = None,
) -> str:
    """Returns the page as text.

    Args:
        model: The trained model; `None` of a program, whose page has no latent space, and pictures
            of data only where they have a shape.
        test: The data that `evidence` is of, in its order.
        image_shape: Height and width of a datum; `None` shows a model's as a strip.
        evidence: What `evaluate` found.
        history: ELBOs of training, by name, a value an epoch.
        config: The run's options.
        name: Of the run.
        day: On which `evidence` was computed.
        notes: What the run was trained with before it went on with these options.
        program: The (model, guide) to draw; of a model, its own.
    """
    x = torch.as_tensor(test.x[:ROWS])  # of data on disk no more is read
    y = None if test.y is None else test.y[:ROWS]
    shape = image_shape or ((1, x.shape[1]) if model else None)
    explorer = None
    if shape and isinstance(model, Encodes) and isinstance(model, Decodes):
        planes = _planes(model, x, shape)
        explorer = {"shape": shape, "drawn": POINTS, "planes": planes}
    figures = runs.overview(model, x, shape, history, evidence)
    if pair := program or (model and (model.model, model.guide)):
        n = len(evidence.best().value)  # for the N of the plate
        arrays = model.arrays(test) if model else test.arrays
        everything = (torch.as_tensor(a[:1]).expand(n, *a.shape[1:]) for a in arrays)
        figures["program"] = plots.plates(*pair, *everything)
    best = evidence.best()
    if first := figures.get("reconstructions"):
        first.set_label(signed(f"{first.get_label()}{_of_first(best, y)}"))
    environment = Environment(loader=PackageLoader("pyrovae", "report"), autoescape=True)
    environment.filters["number"] = words.number
    return environment.get_template("page.html").render(
        name=name,
        config=config,
        evidence=evidence,
        best=best,
        method=best.label,
        most=ROWS,
        rows=evidence.rows(),
        commands=words.commands(name, evidence, config, notes),
        reading=signed(evidence.reading()).splitlines(),
        figures=[
            (words.CAPTIONS[name], plots.as_url(figure), figure.get_label())
            for name, figure in figures.items()
        ],
        title=words.title(model, config),
        day=day,
        trained=words.trained(model, shape, evidence.protocol, history, config),
        style=_file("page.css"),
        script=_file("page.js"),
        data={
            "explorer": explorer,
            "table": _table(x, y, shape, evidence),
        },
    )


def _of_first(best: Estimate, y: Tensor | None) -> str:
    """Returns what is known of the first data, in words."""
    text = f" Their log p(x): {', '.join(f'{v:.1f}' for v in best.value[:12].tolist())}."
    if y is not None:
        text += f" Their labels: {', '.join(map(str, y[:12].tolist()))}."
    return text


def _planes(model: Any, x: Tensor, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Returns the planes of the explorer: the test data on each, and what it decodes to.

    A plane is an origin and two axes in latent space: the latent itself where it has one or two
    dimensions, else the principal components of the means, from their mean, and the two
    dimensions of largest KL, with the others at their mean, where each has a KL of its own.
    """
    q = model.encode(x)
    z, d = q.mean, q.event_shape[0]
    unit, mean = torch.eye(d).to(z), z.mean(0)
    if d <= 2:
        second = unit[1] if d == 2 else torch.zeros_like(unit[0])
        names = ("z 1", "z 2" if d == 2 else "")
        planes = [("the latent", 0 * mean, unit[0], second, names, "")]
    else:
        axes, share = plots.principal_axes(z)
        names = [f"principal component {i + 1} ({share[i]:.0%})" for i in range(2)]
        held = [f"z {k + 1} = {v:z.2f}" for k, v in enumerate(mean.tolist())]
        text = f"In all other directions z is held at the mean of the points: {', '.join(held)}."
        planes = [("principal components of the means", mean, axes[0], axes[1], names, text)]
        if (kl := _kl(model, q, x)) is not None:
            i, j = kl.topk(2).indices.tolist()
            dear = f"z {i + 1} ({kl[i]:.2f} nats)", f"z {j + 1} ({kl[j]:.2f} nats)"
            rest = ", ".join(h for k, h in enumerate(held) if k not in (i, j))
            text = f"The other latents are held at the mean of the points: {rest}."
            pair = mean - mean * (unit[i] + unit[j])
            planes += [("the two dimensions of largest KL", pair, unit[i], unit[j], dear, text)]
    size = max(2, min(TILES, isqrt(DECODED // prod(shape))))
    found = []
    for title, origin, first, second, names, held in planes:
        points = torch.stack([(z - origin) @ first, (z - origin) @ second], 1)
        low, high = points.amin(0) - 0.5, points.amax(0) + 0.5
        steps = torch.linspace(0, 1, size).to(z)[:, None]
        across, up = (low + steps * (high - low)).T
        grid = origin + across[None, :, None] * first + up.flip(0)[:, None, None] * second
        tiles = model.decode(grid.reshape(-1, d)).mean
        found.append({
            "title": title,
            "names": names,
            "held": signed(held),
            "low": low.tolist(),
            "high": high.tolist(),
            "size": size,
            "sprite": _sprite(tiles, shape, size, x),
            "points": [[round(v, 3) for v in p] for p in points.tolist()],
        })  # fmt: skip
    return found


def _kl(model: Any, q: Any, x: Tensor) -> Tensor | None:
    """Returns the mean KL(Q(z|X) || P(z)) of each latent dimension, `(z_dim,)`, in nats.

    `None` where they are not normals that are independent in all dimensions.
    """
    both = (q, model.prior(x)) if isinstance(model, HasPrior) else ()
    normal = [isinstance(p, Independent) and isinstance(p.base_dist, Normal) for p in both]
    if not (both and all(normal)):
        return None
    return kl_divergence(*(p.base_dist for p in both)).mean(0)


def _table(
    x: Tensor, y: Tensor | None, shape: tuple[int, int] | None, evidence: Evidence
) -> dict[str, Any]:
    """Returns the columns of the table of data, its words, and one picture of all thumbnails."""
    best = evidence.best()
    weighed = evidence.estimates.get("importance", best)
    n = len(x)
    columns = {
        "datum": list(range(n)),
        "log p(x)": best.value[:n].tolist(),
        "s.e.": best.std_error[:n].tolist(),
        "ESS": weighed.ess[:n].tolist(),
        "k-hat": weighed.pareto_k[:n].tolist(),
        "verdict": best.verdict()[:n],
    }
    if "elbo" in evidence.estimates:
        columns["ELBO"] = evidence["elbo"].value[:n].tolist()
    if y is not None:
        columns["label"] = y.tolist()
    order = ("datum", "label", "log p(x)", "s.e.", "ELBO", "ESS", "k-hat", "verdict")
    shown, across, sprite = x if shape else x[:0], min(100, n), ""
    while (
        shape and len(sprite := _sprite(shown, shape, across, x)) > THUMBNAILS and len(shown) > 1
    ):
        shown = shown[: len(shown) // 2]
    return {
        "names": [name for name in order if name in columns],
        "columns": {
            name: [_rounded(v, DIGITS[name]) for v in column] if name in DIGITS else column
            for name, column in columns.items()
        },
        "digits": DIGITS,
        "shape": shape or (1, 1),
        "across": across,
        "thumbnails": len(shown),
        "sprite": sprite,
    }


def _rounded(value: float, digits: int) -> float | None:
    """Returns a number as it is shown, `None` where JSON has none for it."""
    return round(value, digits) if np.isfinite(value) else None


def _sprite(tiles: Tensor, shape: tuple[int, int], across: int, like: Tensor) -> str:
    """Returns rows `(n, D)` as one picture, `across` side by side, black at the data's largest."""
    low, high = like.min().item(), like.max().item()
    down = ceil(len(tiles) / across)
    padded = torch.full((down * across, prod(shape)), low)
    padded[: len(tiles)] = tiles.cpu()
    grid = padded.reshape(down, across, *shape).transpose(1, 2)
    scaled = (high - grid.reshape(down * shape[0], -1)) / max(high - low, 1e-12)
    image = Image.fromarray((scaled.clamp(0, 1) * 255).round().byte().numpy())
    if bool(((tiles == low) | (tiles == high)).all()):
        image = image.convert("1", dither=Image.Dither.NONE)
    else:
        image = image.quantize(64)
    with BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def _file(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
