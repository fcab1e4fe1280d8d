"""What a latent space holds of held-out data: python -m pyrovae latent RUN."""

__all__ = ["main", "parser"]

import json
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pyrovae.commands.common import check_device, guarded
from pyrovae.commands.named import own_code
from pyrovae.commands.tasks import Task, add_data
from pyrovae.commands.users import blamed

if TYPE_CHECKING:  # imports that take long come where an interrupt is met
    from jsonargparse import Namespace

    from pyrovae.commands.options import Parser
    from pyrovae.commands.svi_options import Config
    from pyrovae.latents.summary import Latent
    from pyrovae.latents.sweeps import Trained

DOES = "What a latent space holds of held-out data: rate, active units, information, ways through."
EXAMPLES = (
    ("runs/mnist", "KL by dimension, codes as latent.csv, pictures"),
    ("runs/mnist --z-dims 2 5 10 20", "trains again: which bottleneck has the highest log P(X)"),
    ("runs/mnist --betas 0.25 1 4", "trains again: rate and distortion by beta"),
    ("--program prog:make --data xy.npz", "of your own: make() in prog.py gives (model, guide)"),
)
ANNEALED = 64  # data of the rate-distortion curve, at most
SWEPT = {"z_dim": "z_dims", "beta": "betas"}


def parser() -> "Parser":
    """Returns the command line: a run's folder or a program, data, and what is to be varied."""
    from pyrovae.commands.options import AMOUNT, COUNT, SEED, Parser, add_own_code

    p = Parser(" latent", DOES, EXAMPLES, "[RUN]")
    p.add_argument("run", nargs="?", type=str | None, help="folder of python -m pyrovae.svi")
    add = p.add_argument_group("data and model").add_argument
    add_data(add)
    add_own_code(add)
    add("--plate", type=str | None, help="over the data (default: data)")
    add = p.add_argument_group("codes").add_argument
    add("--num-particles", type=COUNT, default=16, metavar="S", help="draws of the guide")
    add("--seed", type=SEED, default=0, metavar="N", help="of the draws")
    add = p.add_argument_group("trained again, each a run in RUN/trained").add_argument
    add("--z-dims", type=COUNT, nargs="+", default=[], metavar="D", help="latent dimensions")
    add("--betas", type=AMOUNT, nargs="+", default=[], metavar="X", help="of beta-elbo")
    add = p.add_argument_group("computing").add_argument
    add("--out", type=str | None, metavar="FOLDER", help="(default: the run's)")
    add("--device", default="cpu", metavar="NAME", help="cpu, cuda, cuda:1, ...")
    add("--json", action="store_true", help="the numbers as JSON on stdout, all else on stderr")
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 5 run, 130 interrupted.

    Args:
        argv: Without the name of the command; `None` takes the process's own.
    """
    return guarded(lambda: run(parser().parse_args(argv)))


def run(config: "Namespace") -> int:
    """Prints what the codes hold, and writes table and pictures; returns the exit code, 0.

    Args:
        config: The options.

    Raises:
        StateError: If the folder holds no run.
        ValueError: If neither a run nor a program is named, or no datum has latents of its own.
    """
    import pyrovae as pv
    from pyrovae import runs
    from pyrovae.commands.tasks import of_program, of_run
    from pyrovae.data.rows import chosen
    from pyrovae.runs.folder import worked_in

    if not (config.run or config.program):
        raise ValueError("give a run folder, or --program package.module:make")
    with blamed(*own_code(vars(config))):
        check_device(config.device)
        task = of_run(config) if config.run else of_program(config)
        model, guide = task.pair
        if guide is None:
            raise ValueError(
                "there is no guide, so that nothing says what the latents of data are"
            )
        data = tuple(chosen(x, config.rows)[:].to(config.device) for x in task.data)
        swept = {option: _trained(config, option) for option in SWEPT if config[SWEPT[option]]}
        draws = {"num_particles": config.num_particles, "seed": config.seed, "plate": task.plate}
        found = pv.latent(model, guide, *data, **draws)
        own = getattr(model, "__self__", None)
        own = own if isinstance(own, pv.Model) else None
        figures = runs.of_latent(found, own, data[0], task.image_shape)
        figures |= {option: runs.of_sweep(option, known) for option, known in swept.items()}
        with suppress(TypeError, ValueError):  # of latents without a gradient there is none
            some = (x[:ANNEALED] for x in data)
            curve = pv.rate_distortion(model, *some, seed=config.seed, plate=task.plate)
            figures["rate_distortion"] = runs.along_annealing(curve)
        with worked_in(task.folder) as folder:
            runs.write_latent(folder, found.to_csv(_labels(config, task)), figures)
    _say(config, found, swept, task.folder)
    return 0


def _labels(config: "Namespace", task: Task) -> list[object] | None:
    """Returns the labels of the rows, where these are of a run's own test part and have some.

    Args:
        config: Which rows.
        task: With the data.
    """
    from pyrovae.data.rows import chosen

    y = task.splits.test.y if task.splits else None
    return None if y is None else chosen(y, config.rows)[:].tolist()


def _trained(config: "Namespace", option: str) -> "list[Trained]":
    """Returns what trainings with other values of an option come to; those done are read.

    Each is a run of the main job in a folder of its own, with the run's options but one.

    Args:
        config: The options.
        option: "z_dim" or "beta".

    Raises:
        ValueError: If it is a program, which is not made of options.
    """
    from pyrovae import runs
    from pyrovae.commands import svi
    from pyrovae.commands.svi_options import configured, kept
    from pyrovae.commands.tasks import of_run
    from pyrovae.latents.sweeps import looked_at

    flag = f"--{SWEPT[option].replace('_', '-')}"
    if not config.run or runs.holds_program(Path(config.run)):
        raise ValueError(f"{flag} trains a run's model again, and this is a program")
    own = runs.read_config(Path(config.run))
    size = "--z-dim" if own.get("likelihood") else "--model.z_dim"
    found = []
    for value in config[SWEPT[option]]:
        folder = Path(config.run) / "trained" / f"{option}-{value:g}"
        argv = ["--config", str(Path(config.run) / "config.yaml"), "--out", str(folder)]
        for name in ("model", "likelihood", "data"):
            argv += [f"--{name}", config[name]] * bool(config[name])
        if option == "z_dim":
            argv += [size, str(value)]
        else:
            argv += ["--objective", f"beta-elbo({value:g})"]
        wanted = configured(argv)
        if not _is_done(folder, kept(wanted)):
            print(f"training with {option} = {value:g}, in {folder}", file=sys.stderr)
            with redirect_stdout(sys.stderr):
                wanted.overwrite = True
                svi.run(wanted, argv)
        again = config.clone()
        again.run, again.data, again.binarize, again.out = str(folder), None, None, None
        task = of_run(again)
        data = tuple(x[:].to(config.device) for x in task.data)
        evidence = runs.load_evidence(folder)
        found.append(looked_at(value, task.pair, data, evidence, config.seed))
    return found


def _is_done(folder: Path, wanted: "Config") -> bool:
    """Returns whether a folder holds the run of these options, with its evidence.

    Args:
        folder: Where it would lie.
        wanted: The options, as config.yaml has them.
    """
    from pyrovae import runs

    there = (folder / runs.EVIDENCE).exists() and (folder / runs.CONFIG).exists()
    return there and dict(runs.read_config(folder)) == wanted


def _say(
    config: "Namespace", found: "Latent", swept: "dict[str, list[Trained]]", folder: Path
) -> None:
    """Prints what was found, under `--json` as JSON alone on stdout.

    Args:
        config: The options.
        found: Of the codes.
        swept: Of trainings by what was varied.
        folder: Where all of it lies.
    """
    from pyrovae.latents.sweeps import table

    tables = [table(option, known) for option, known in swept.items()]
    text = "\n\n".join([str(found), *tables, f"folder: {folder}"])
    print(text, file=sys.stderr if config.json else sys.stdout)
    if config.json:
        sites = {
            name: {"kl": c.kl.tolist(), "active": c.active.tolist()}
            for name, c in found.codes.items()
        }
        rate, error = found.rate()
        known = found.information
        result = {"folder": str(folder), "rate": rate, "rate_error": error, "sites": sites}
        result |= {"information": known and known.bounds()}
        result |= {option: [asdict(t) for t in done] for option, done in swept.items()}
        print(json.dumps(result))
