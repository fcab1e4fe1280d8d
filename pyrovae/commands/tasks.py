"""What `pyrovae.evidence` evaluates: a run, or a user's program, with data."""

__all__ = [
    "Names",
    "Part",
    "Task",
    "add_data",
    "check_out",
    "data_of",
    "is_own",
    "names_of",
    "of_data",
    "of_program",
    "of_run",
    "opened",
    "part_of",
]

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyrovae.commands.named import check_again, data_source, likelihood_name, model_class
from pyrovae.commands.users import check_takes, make_program, program_sha256
from pyrovae.registry import is_path

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace
    from torch import Tensor

    from pyrovae.data import Split, Splits
    from pyrovae.data.rows import Rows
    from pyrovae.runs import Run
    from pyrovae.runs.saving import Pair


def add_data(add: Callable[..., object]) -> None:
    """Adds the options that say which rows are evaluated.

    Args:
        add: Adds an option to a group of the parser.
    """
    add(
        "--data",
        type=str | None,
        metavar="NAME",
        help="data set by name or package.module.Name of your own (its test part), or .npy/.npz "
        "(all rows; of a program: its arrays in order) (default: the run's own test part)",
    )
    add("--root", type=str | None, metavar="FOLDER", help="that holds the named data sets")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: as the run; of a program: none)",
    )
    add(
        "--rows",
        type=str | None,
        help="100 (so many, evenly spaced) or start:stop[:step] (default: all)",
    )


def check_out(out: str | None, header: str) -> None:
    """Raises ValueError where a file is there that no such table was written to.

    Args:
        out: The file that is asked for; or `None`.
        header: The first line of such a table, or how it begins.
    """
    if not out or not Path(out).exists():
        return
    with Path(out).open("rb") as file:
        if file.readline(2 * len(header)).decode(errors="replace").startswith(header):
            return
    raise ValueError(f"--out {out} is there, and is no table of this command; name another file")


class Task(NamedTuple):
    """What is to be evaluated: a program, its data, and what is known of both.

    Attributes:
        pair: Model and guide.
        data: What they take, `(N, ...)` each.
        image_shape: Height and width of a row of x, or `None`.
        protocol: What is on record of both.
        folder: Where the results go.
        plate: Name of the plate over the data.
        splits: Of the run, where the task is its own test part and its own folder; else `None`.
    """

    pair: "Pair"
    data: "tuple[Tensor | Rows, ...]"
    image_shape: tuple[int, int] | None
    protocol: dict[str, object]
    folder: Path
    plate: str
    splits: "Splits | None" = None


class Part(NamedTuple):
    """Rows to be evaluated.

    Attributes:
        rows: The rows.
        image_shape: Height and width of a row of x, or `None`.
        protocol: What is on record of them.
        splits: Of which they are the test part; `None` where they are all rows of a file.
    """

    rows: "Split"
    image_shape: tuple[int, int] | None
    protocol: Mapping[str, object]
    splits: "Splits | None" = None


class Names(NamedTuple):
    """What a table calls its rows and columns; `None` where they have numbers alone."""

    rows: list[object] | None
    columns: list[str] | None


def names_of(config: "Namespace", task: Task | Part) -> Names:
    """Returns the names of what was judged.

    Args:
        config: The options of a run and its `data`.
        task: The run's model with it, or its rows. Of the run's own test part rows have numbers.
    """
    from pyrovae.data.tables import TableFile
    from pyrovae.registry import names_table

    run = opened(config)
    columns = [c.name for c in run.table] or None
    if task.protocol["part"] != "all" or not names_table(config.data):
        return Names(None, columns)
    index = TableFile(config.data, run.columns).index
    return Names(None if index is None else list(index), columns)


def opened(config: "Namespace", needs_program: bool = True) -> "Run":
    """Returns the run of a folder, the user's own code that it is of named again and imported.

    Args:
        config: With `run`, and what names code: `program`, `model`, `likelihood`.
        needs_program: Whether a run of a program is of use only with that.

    Raises:
        ValueError: If code of the user's own is not named, or something else is.
    """
    from pyrovae import runs

    folder = Path(config.run)
    program = runs.holds_program(folder)
    kept = runs.read_config(folder)
    if config.program and not program:
        raise ValueError(
            f"{folder} holds a model, which needs no --program; give a run folder, or --program, "
            "one of them"
        )
    given = [name for name in ("program", "model", "likelihood") if config[name]]
    if program and not (config.program or needs_program):
        return runs.read_run(folder)
    check_again(kept, given, ("program",) if program else ("model", "likelihood"))
    if program:
        pair = make_program(config.program, kept["seed"], config.get("device", "cpu"))
        return runs.read_run(folder, pair)
    cls = model_class(config.model) if config.model else None
    likelihood_name(config.likelihood or "")
    run = runs.read_run(folder, device=config.get("device", "cpu"))
    if cls and type(run.model) is not cls:
        raise ValueError(f"{folder} holds a {type(run.model).__name__}, not a {config.model}")
    return run


def of_run(config: "Namespace") -> Task:
    """Returns what a run folder holds with its test data, or with others.

    Results of the run's own test part go into its folder, those of other data, or of data made
    binary otherwise, into one inside it.

    Args:
        config: The options.

    Raises:
        StateError: If the folder holds no run that can be read.
        DataError: If the data cannot be had, or are not what model and guide take.
        ValueError: If code of the user's own is not named again.
    """
    from pyrovae import runs

    run = opened(config)
    kept = run.config
    part, own = _part_of_run(config, run)
    protocol = {**part.protocol}
    arrays = run.arrays(part.rows)
    if run.model:
        pair = run.trained()
        protocol |= runs.about_model(kept) | runs.accuracy(run.model, part.rows, config.device)
    else:
        assert run.program
        check_takes(run.program, arrays, f"--data {config.data or kept['data']}")
        protocol |= {"program": config.program, "program_sha256": program_sha256(run.program)}
        some = (x[: kept["batch_size"]].to(config.device) for x in arrays)
        pair = run.trained(*some)
    protocol |= {**runs.about_training(kept), "saved_sha256": runs.saved_sha256(run.folder)}
    default = run.folder if own else run.folder / f"evidence-{_stem(config.data or kept['data'])}"
    out = Path(config.out) if config.out else default
    splits = part.splits if own and out.resolve() == run.folder.resolve() else None
    plate = config.plate or kept.get("plate", "data")
    return Task(pair, arrays, part.image_shape, protocol, out, plate, splits)


def _part_of_run(config: "Namespace", run: "Run") -> tuple[Part, bool]:
    """Returns the test part of a run's data or of others, of a file all rows; and if they are own.

    Args:
        config: The options.
        run: The run.
    """
    kept = run.config
    binarize = config.binarize or kept["binarize"]
    own = config.data in (None, kept["data"]) and binarize == kept["binarize"]
    if config.data and config.data != kept["data"] and Path(config.data).exists():
        return _all_rows(config.data, binarize, run.model is None, run.columns), own
    return _test_part(data_of(config, run, binarize, own)), own


def data_of(
    config: "Namespace", run: "Run", binarize: str | None = None, own: bool = True
) -> "Splits":
    """Returns the data of a run, or others that are named, divided as they would be for it.

    Args:
        config: With `data` and `root`.
        run: The run.
        binarize: Otherwise than the run.
        own: Whether they are its own.

    Raises:
        ValueError: If they are of the user's own code, and not named again.
    """
    check_again(run.config, ("data",) if config.data else (), ("data",))
    source = data_source(config.data or run.config["data"])
    return run.splits(source, own=own, root=config.root, binarize=binarize)


def of_data(config: "Namespace", data: str | None) -> Task:
    """Returns the run's model with data.

    Args:
        config: The options.
        data: Theirs by name; `None` for the run's own test part. A file that the run was trained
            on is that as well, however its path is written.
    """
    return of_run(_with_data(config, data))


def part_of(config: "Namespace", run: "Run", data: str | None) -> Part:
    """Returns data of a run or others, with their labels, whatever of these its model takes.

    Args:
        config: The options.
        run: The run.
        data: As of `of_data`.
    """
    return _part_of_run(_with_data(config, data), run)[0]


def _with_data(config: "Namespace", data: str | None) -> "Namespace":
    """Returns the options with other data, and no folder for results.

    Args:
        config: The options.
        data: As of `of_data`.
    """
    again = config.clone()
    again.data, again.out = None if data and is_own(config, data) else data, None
    return again


def is_own(config: "Namespace", data: str) -> bool:
    """Returns whether a file is the one a run was trained on, however its path is written.

    Args:
        config: The options of a run.
        data: The path of a file, or another name of data.
    """
    from pyrovae import runs

    own = runs.read_config(Path(config.run))["data"]
    return Path(data).exists() and Path(own).exists() and Path(data).samefile(own)


def of_program(config: "Namespace") -> Task:
    """Returns a user's program with a user's data.

    Args:
        config: The options.

    Raises:
        ProgramError: If there is no such program, or making it fails.
        DataError: If the data cannot be had, or the program takes another number of arrays.
        ValueError: If no data are named.
    """
    import pyrovae as pv

    if not config.data:
        raise ValueError("--program needs --data: a .npy or .npz, or a data set by name")
    pair = make_program(config.program, config.seed, config.device)
    binarize = config.binarize or "none"
    if Path(config.data).exists():
        part = _all_rows(config.data, binarize, program=True)
    else:
        root = config.root or "data"
        source = data_source(config.data)
        part = _test_part(pv.data.load_arrays(source, root=root, binarize=binarize))
    check_takes(pair, part.rows.arrays, f"--data {config.data}")
    protocol = {"program": config.program, **part.protocol}
    made = config.program.partition(":")[2]
    folder = Path(config.out or f"runs/evidence-{made}-{_stem(config.data)}")
    plate = config.plate or "data"
    return Task(pair, part.rows.arrays, part.image_shape, protocol, folder, plate)


def _all_rows(
    path: str, binarize: str, program: bool, columns: "Mapping[str, object] | None" = None
) -> Part:
    """Returns all rows of a file.

    Args:
        path: Of a .npy, .npz, .csv or .parquet.
        binarize: How they are made binary.
        program: Whether they are for a program, which gets the arrays as they are.
        columns: What a table's columns are.
    """
    import pyrovae as pv
    from pyrovae.registry import names_table

    said = columns if names_table(path) else None
    return Part(*pv.data.load_rows(path, binarize, program=program, columns=said))


def _test_part(splits: "Splits") -> Part:
    """Returns the test part of a data set, with the record of how it came about.

    Args:
        splits: Of the data set.
    """
    return Part(splits.test, splits.image_shape, {**splits.protocol, "part": "test"}, splits)


def _stem(data: str) -> str:
    """Returns data's name as that of a folder: "x" of "data/x.npy", "Mine" of "my_data.Mine".

    Args:
        data: A name, path or import path.
    """
    return data.rpartition(".")[2] if is_path(data) else Path(data).stem
