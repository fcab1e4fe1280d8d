"""The main job: fit a VAE, or your program, by SVI, then say what log P(X) of held-out data is."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt

from pyrovae.commands import (
    AMOUNT,
    COUNT,
    ESTIMATORS,
    add_common,
    check_device,
    guarded,
    make_program,
    program_sha256,
)

if TYPE_CHECKING:
    from torch import Tensor

    from pyrovae.data import Splits
    from pyrovae.models.vae import VAE
    from pyrovae.saving import Pair
    from pyrovae.svi.ranks import Ranks

INVOCATION = ("config", "out", "resume", "overwrite", "progress", "json", "download")
OF_VAE = ("likelihood", "sigma", "z_dim", "hidden_dims")


def parser() -> ArgumentParser:
    """Returns the command line; what is not about this invocation also goes into config.yaml."""
    p = ArgumentParser(prog="python -m pyrovae.svi", description=__doc__)
    add = p.add_argument
    add("--config", action="config", help="YAML file of options; flags override it")
    add("--program", type=str | None, help="package.module:make, returning (model, guide)")
    add(
        "--data",
        default="digits",
        help="data set by name, or the path of a .npy or .npz (of a program: its arrays in order)",
    )
    add("--root", default="data", help="folder that holds the named data sets")
    add("--download", action="store_true", help="fetch a torchvision data set that is not there")
    add(
        "--binarize",
        choices=["static", "dynamic", "threshold", "none"],
        help="(default: dynamic; of a program: none)",
    )
    add("--valid-size", type=COUNT | None, help="training rows held out for validation")
    add("--likelihood", default="bernoulli", help="bernoulli, continuous-bernoulli or normal")
    add(
        "--sigma",
        type=AMOUNT | None,
        help="of the normal likelihood; learned if not given",
    )
    add("--z-dim", type=COUNT, default=16, help="latent dimensions")
    add(
        "--hidden-dims",
        type=COUNT,
        nargs="+",
        default=[256],
        help="widths of the encoder's layers",
    )
    add("-n", "--num-epochs", type=COUNT, default=300, help="passes over the training data")
    add("--batch-size", type=COUNT, default=128, help="rows of a step")
    add(
        "--lr",
        type=AMOUNT,
        default=1e-3,
        help="learning rate; the highest one of one-cycle",
    )
    add("--lr-schedule", default="constant", choices=["constant", "one-cycle"])
    add("--clip-norm", type=AMOUNT | None, help="largest norm of the gradient")
    add(
        "--patience",
        type=COUNT | None,
        help="epochs to wait for a better validation ELBO",
    )
    add(
        "--num-particles",
        type=COUNT,
        default=5_000,
        help="K, samples per datum of the evaluation",
    )
    add(
        "--estimators",
        nargs="+",
        default=["elbo", "importance", "prior"],
        choices=ESTIMATORS,
    )
    add("--plate", default="data", help="name of a program's plate over the data")
    add("--seed", type=NonNegativeInt, default=0, help="of weights, training and evaluation")
    add("--out", type=str | None, help="run folder (default: runs/<time>-<data>)")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--overwrite", action="store_true", help="replace the run in --out")
    add_common(p)
    return p


def main(argv: list[str] | None = None) -> int:
    """Runs the job and returns its exit code: 0 ok, 2 usage, 3 data, 4 diverged, 5 checkpoint."""
    p = parser()
    argv = sys.argv[1:] if argv is None else argv
    try:
        config = p.parse_args(argv)
        if config.resume and config.out and (Path(config.out) / "config.yaml").is_file():
            config = p.parse_args(["--config", str(Path(config.out) / "config.yaml"), *argv])
    except SystemExit as e:
        return int(e.code or 0)

    def checked() -> int:
        named = any(a.partition("=")[0] == "--program" for a in argv)
        if config.program and not named:
            raise ValueError(
                f"this is the configuration of the program {config.program}, and no code is "
                f"imported because a file names it; name it again: --program {config.program}"
            )
        if config.program and (of_vae := [n for n in OF_VAE if config[n] != p.get_default(n)]):
            raise ValueError(
                f"--{of_vae[0].replace('_', '-')} is for a VAE, not for a program; leave it out"
            )
        config.binarize = config.binarize or ("none" if config.program else "dynamic")
        return run(config)

    return guarded(checked, "the run goes on with --resume and the same --out")


def run(config: Namespace) -> int:
    """Fits, evaluates, prints and writes the run folder; of several processes, rank 0 does."""
    from pyrovae.svi.ranks import joined

    with joined(config.device) as (ranks, config.device):
        return _run(config, ranks)


def _run(config: Namespace, ranks: "Ranks") -> int:
    import pyrovae as pv
    from pyrovae import report, runs, storage
    from pyrovae.resuming import read_checkpoint

    # through JSON, which makes plain numbers of the parser's restricted ones
    kept = json.loads(json.dumps({k: v for k, v in vars(config).items() if k not in INVOCATION}))
    splits = _splits(config)
    check_device(config.device)
    vae = None if config.program else _vae(kept, splits)
    pair = (vae.model, vae.guide) if vae else _program(config)
    made = "" if vae else program_sha256(pair)
    folder, resume = Path(), None
    if ranks.rank == 0:
        folder = _folder(config)
        resume = read_checkpoint(folder, splits.protocol, kept, made) if config.resume else None
    resume = ranks.same_object(resume)
    notes = resume.notes if resume else []

    result = pv.svi.fit(
        *pair,
        splits.train.arrays,
        valid=splits.valid.arrays,
        num_epochs=config.num_epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        clip_norm=config.clip_norm,
        patience=config.patience,
        transform=splits.transform,
        device=config.device,
        compile=config.compile,
        seed=config.seed,
        progress=config.progress,
        callback=_writer(folder, vae, splits, kept, made, notes),
        resume=resume.state if resume else None,
    )
    if ranks.rank:
        return 0
    runs.write_config(folder, kept, notes)
    batch = _on(config.device, (x[: config.batch_size] for x in splits.train.arrays))
    runs.save(vae, folder, epoch=result.best_epoch) if vae else runs.save(
        pair, folder, *batch, epoch=result.best_epoch
    )
    what = {"program": config.program, "program_sha256": made}
    if vae:
        what = {"likelihood": config.likelihood}
    evidence = pv.evaluate(
        *pair,
        *_on(config.device, splits.test.arrays),
        estimators=config.estimators,
        num_particles=config.num_particles,
        plate=config.plate,
        seed=config.seed,
        progress=config.progress,
        protocol={
            **splits.protocol,
            "part": "test",
            **what,
            "saved_sha256": runs.saved_sha256(folder),
        },
    )
    runs.drop_evidence(folder)
    storage.write_dataset(folder / runs.EVIDENCE, evidence.to_xarray())
    runs.write_figures(folder, vae, splits, result, evidence, config.device)
    report.write(folder, splits=splits, program=pair)

    to = sys.stderr if config.json else sys.stdout
    print(
        f"{config.data}, {config.binarize} binarization; {result}\n\n{evidence}\n\n"
        f"run folder: {folder}",
        file=to,
    )
    if config.json:
        print(
            json.dumps(
                {
                    "run": str(folder),
                    "estimators": evidence.rows(),
                    "protocol": dict(evidence.protocol),
                }
            )
        )
    return 0


def _splits(config: Namespace) -> "Splits":
    import pyrovae as pv

    load = pv.data.load_arrays if config.program else pv.data.load
    return load(
        config.data,
        root=config.root,
        binarize=config.binarize,
        valid_size=config.valid_size,
        download=config.download,
    )


def _vae(kept: dict[str, Any], splits: "Splits") -> "VAE":
    """Returns the VAE asked for; ValueError where --sigma does not belong to its likelihood."""
    from pyrovae import likelihoods
    from pyrovae.models.vae import VAE
    from pyrovae.rng import seeded

    name, sigma = kept["likelihood"], kept["sigma"]
    if sigma is not None and name != likelihoods.Normal.name:
        raise ValueError(f"--sigma is for the normal likelihood, not for {name}")
    with seeded(kept["seed"]):
        family = likelihoods.make(name, **({} if sigma is None else {"sigma": sigma}))
        x: Any = splits.train.x
        vae = VAE(x.shape[1], kept["z_dim"], kept["hidden_dims"], family)
    return vae.start_at(x).to(kept["device"])


def _program(config: Namespace) -> "Pair":
    return make_program(config.program, config.seed, config.device)


def _on(device: str, arrays: Any) -> "tuple[Tensor, ...]":
    return tuple(x.to(device) for x in arrays)


def _folder(config: Namespace) -> Path:
    """Returns the run folder, made and writable; refuses one that already holds a run."""
    from pyrovae import runs, storage

    name = f"runs/{datetime.now():%Y%m%d-%H%M%S}-{Path(config.data).stem}"
    folder = Path(config.out or name)
    if config.resume and not config.out:
        raise ValueError("--resume needs the run's folder; add --out FOLDER")
    if config.resume and config.overwrite:
        raise ValueError("--resume keeps the run and --overwrite drops it; give one of them")
    if config.resume and not runs.holds_run(folder):
        raise storage.StateError(f"there is no run in {folder.resolve()} to resume")
    if runs.holds_run(folder) and not (config.resume or config.overwrite):
        raise ValueError(
            f"{folder} already holds a run; add --resume, --overwrite, or another --out"
        )
    try:
        storage.write_lines(folder / ".writable", [])
        (folder / ".writable").unlink()
    except OSError as e:
        raise ValueError(
            f"--out {folder} cannot be written: {e.strerror}; name another folder"
        ) from e
    return folder


def _writer(
    folder: Path,
    vae: "VAE | None",
    splits: "Splits",
    config: dict[str, Any],
    program: str,
    notes: list[str],
) -> Any:
    """Returns the callback that keeps the run folder up to date, an epoch at a time.

    It is first called when all input has been found good: only then does a new run replace an old.
    """
    from pyrovae import runs, storage

    def write(state: dict[str, Any]) -> None:
        epoch = len(state["elbo"])
        if epoch == 0:
            runs.clear(folder)
        if state["best_epoch"] == epoch and vae:
            runs.save(vae, folder, epoch=epoch)
        elif state["best_epoch"] == epoch:
            runs.write_state(folder, state["parameters"], state["buffers"], epoch=epoch)
        known = {"data": splits.protocol, "config": config, "program": program, "notes": notes}
        storage.save_state(folder / runs.CHECKPOINT, {**state, **known})
        runs.write_config(folder, config, notes)
        runs.write_metrics(folder, state)

    return write


if __name__ == "__main__":
    sys.exit(main())
