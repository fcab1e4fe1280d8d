"""One HTML page of a run: opens from disk, with nothing from elsewhere."""

__all__ = ["render", "write"]

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from markupsafe import Markup

from pyrovae import runs, storage
from pyrovae.data import Split, Splits
from pyrovae.data.rows import chosen
from pyrovae.errors import NoDensity
from pyrovae.evidence.results import Evidence
from pyrovae.models.base import Model
from pyrovae.plots.figures import signed
from pyrovae.program import check_density, inspect
from pyrovae.report import words
from pyrovae.report.panel import Panel, Picture, Shown, arranged, file_text, filled
from pyrovae.runs.saving import Pair


class More(TypedDict, total=False):
    """What else `render` may know of a run.

    Attributes:
        day: On which `evidence` was computed.
        notes: What the run was trained with before it went on with these options.
        program: The (model, guide) to draw; of a model, its own.
        panels: Of the user's own, beside ours: subclasses of `Panel`, or instances.
    """

    day: date | None
    notes: Sequence[str]
    program: Pair | None
    panels: Sequence[type[Panel] | Panel]


def write(
    folder: str | Path,
    *,
    root: str | None = None,
    splits: Splits | None = None,
    program: Pair | None = None,
    panels: Sequence[type[Panel] | Panel] = (),
) -> Path:
    """Writes `report.html` into a run folder, from what lies in it and its test data.

    Args:
        folder: Of a run, with its evidence; of one that has no log P(X), the page says why.
        root: Folder of the named data sets, if they are no longer where they were.
        splits: The run's data, where they are at hand; `None` loads them.
        program: The (model, guide) of a run of a program, for its diagram; the page goes without
            where it is not given.
        panels: Of the user's own, beside ours: subclasses of `Panel`, or instances.

    Raises:
        StateError: If the folder holds no run, one without evidence that could have some, or the
            evidence is of another model or other data than the run's.
    """
    folder = Path(folder)
    run = runs.read_run(folder, program)
    config, model = run.config, run.model
    if (folder / runs.EVIDENCE).exists() or not run.pair:
        evidence = runs.load_evidence(folder)
        splits = splits or run.splits(root=root)
        _check_is_of(evidence, run, splits)
    else:
        splits = splits or run.splits(root=root)
        evidence = _none(run, run.pair, splits)
    rows = evidence.protocol.get("rows_chosen", "all")
    rows = None if rows == "all" else rows
    y = splits.test.y
    test = Split(
        chosen(splits.test.x, rows),
        None if y is None else chosen(y, rows)[:],
        tuple(chosen(x, rows) for x in splits.test.more),
    )
    about = splits.image_shape, evidence, runs.read_metrics(folder), config, str(folder)
    made = folder / (runs.EVIDENCE if evidence.estimates else runs.MODEL)
    day = date.fromtimestamp(made.stat().st_mtime)
    more: More = {"day": day, "notes": runs.read_notes(folder), "program": program}
    page = render(model, test, *about, **{**more, "panels": panels})
    storage.write_lines(folder / runs.REPORT, [page])
    return folder / runs.REPORT


def _none(run: runs.Run, pair: Pair, splits: Splits) -> Evidence:
    """Returns the evidence of a run that has no log P(X): none, and why.

    Args:
        run: The run.
        pair: Its model and guide.
        splits: Its data.

    Raises:
        StateError: If it has a log P(X), which nobody has asked for yet.
    """
    try:
        check_density(pair[0], *(a[:64] for a in run.arrays(splits.test)))
    except NoDensity as e:
        about = runs.about_model(run.config) if run.model else {}
        return Evidence.none(e, {**splits.protocol, **about, **runs.about_training(run.config)})
    return runs.load_evidence(run.folder)


def _check_is_of(evidence: Evidence, run: runs.Run, splits: Splits) -> None:
    """Raises StateError where evidence is of other data or of another model than a run's.

    Args:
        evidence: In its folder.
        run: The run.
        splits: Its data.
    """
    again = f"python -m pyrovae.evidence {run.folder} evaluates that"
    if splits.protocol["sha256_test"] != evidence.protocol.get("sha256_test"):
        raise storage.StateError(
            f"the evidence in {run.folder} is of other data than the run's own test part; {again}"
        )
    if not _is_of(evidence, run.folder, run.model, splits):
        raise storage.StateError(
            f"the evidence in {run.folder} is of another model than the one that lies there; "
            f"{again}"
        )


def _is_of(evidence: Evidence, folder: Path, model: Model | None, splits: Splits) -> bool:
    """Returns whether evidence is of the model in a folder, by what its protocol says.

    Its protocol has the digest of what was saved; of evidence of before it had one, that of the
    model's parameters, for which the model is run on two data.

    Args:
        evidence: Of the folder.
        folder: Of the run.
        model: What was trained; `None` of a program.
        splits: The run's data.
    """
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
    history: Mapping[str, Sequence[float]],
    config: Mapping[str, object],
    name: str,
    **more: Unpack[More],
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
        more: See `More`.
    """
    about = more.get("day"), more.get("notes", ()), more.get("program")
    shown = Shown(model, test, image_shape, evidence, history, config, name, *about)
    asked = arranged(more.get("panels", ()))
    there = {panel: panel.has_what_it_needs(shown) for panel in asked}
    found = [panel for panel, fits in there.items() if fits]
    return filled(
        "page.html",
        shown=shown,
        reading=signed(evidence.reading()).splitlines(),
        title=words.title(model, config),
        trained=words.trained(model, shown.shape, evidence.protocol, history, config),
        sections=_sections(found, shown),
        style=file_text("page.css"),
        script=file_text("page.js"),
        data={p.key: p.data(shown) if fits else None for p, fits in there.items() if p.key},
    )


def _sections(found: Sequence[Panel], shown: Shown) -> list[tuple[str, str, Markup]]:
    """Returns id, heading and HTML of each section: pictures stand in one.

    That one has the place of the first of them.

    Args:
        found: Panels that have what they need, in order.
        shown: What is known of the run.
    """
    pictures = [panel for panel in found if isinstance(panel, Picture)]
    sections = []
    for panel in found:
        if panel not in pictures:
            sections.append(
                (panel.anchor or f"panel-{panel.name}", panel.title, Markup(panel.html(shown)))
            )
        elif panel is pictures[0]:
            figures = Markup("\n  ").join(Markup(p.html(shown)) for p in pictures)
            html = Markup("  ") + figures + Markup("\n  ")
            sections.append(("pictures", "Pictures", html))
    return sections
