"""The main job: fit a VAE by SVI, then say what log P(X) of held-out data is, three ways."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt

from pyrovae.commands import AMOUNT, COUNT, ESTIMATORS, add_common, check_device, guarded

if TYPE_CHECKING:
    from pyrovae.data import Splits
    from pyrovae.likelihoods import Likelihood
    from pyrovae.models.vae import VAE
    from pyrovae.svi.ranks import Ranks

INVOCATION = ("config", "out", "resume", "overwrite", "progress", "json", "download")


def parser() -> ArgumentParser:
    """Returns the command line; what is not about this invocation also goes into config.yaml."""
    p = ArgumentParser(prog="python -m pyrovae.svi", description=__doc__)
    add = p.add_argument
    add("--config", action="config", help="YAML file of options; flags override it")
    add("--data", default="digits", help="data set by name, or the path of a .npy or .npz")
    add("--root", default="data", help="folder that holds the named data sets")
    add("--download", action="store_true", help="fetch a torchvision data set that is not there")
    add("--binarize", default="dynamic", choices=["static", "dynamic", "threshold", "none"])
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

    return guarded(lambda: run(config), "the run goes on with --resume and the same --out")


def run(config: Namespace) -> int:
    """Fits, evaluates, prints and writes the run folder; of several processes, rank 0 does."""
    from pyrovae.svi.ranks import joined

    with joined(config.device) as (ranks, config.device):
        return _run(config, ranks)


def _run(config: Namespace, ranks: "Ranks") -> int:
    import pyrovae as pv
    from pyrovae import report, runs, storage
    from pyrovae.rng import seeded

    splits = pv.data.load(
        config.data,
        root=config.root,
        binarize=config.binarize,
        valid_size=config.valid_size,
        download=config.download,
    )
    check_device(config.device)
    with seeded(config.seed):
        family = _likelihood(config)
        vae = pv.VAE(splits.train.x.shape[1], config.z_dim, config.hidden_dims, family)
    vae.start_at(splits.train.x).to(config.device)
    folder, resume = Path(), None
    if ranks.rank == 0:
        folder = _folder(config)
        resume = _checkpoint(folder, splits) if config.resume else None
    resume = ranks.same_object(resume)
    # through JSON, which makes plain numbers of the parser's restricted ones
    kept = json.loads(json.dumps({k: v for k, v in vars(config).items() if k not in INVOCATION}))

    result = pv.svi.fit(
        vae.model,
        vae.guide,
        splits.train.x,
        valid=splits.valid.x,
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
        callback=_writer(folder, vae, splits, kept),
        resume=resume,
    )
    if ranks.rank:
        return 0
    runs.write_config(folder, kept)
    runs.save(vae, folder, epoch=result.best_epoch)
    evidence = pv.evaluate(
        vae.model,
        vae.guide,
        splits.test.x.to(config.device),
        estimators=config.estimators,
        num_particles=config.num_particles,
        seed=config.seed,
        progress=config.progress,
        protocol={**splits.protocol, "part": "test", "likelihood": config.likelihood},
    )
    storage.write_dataset(folder / runs.EVIDENCE, evidence.to_xarray())
    runs.write_figures(folder, vae, splits, result, evidence, config.device)
    report.write(folder, splits=splits)

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


def _likelihood(config: Namespace) -> "Likelihood":
    """Returns the likelihood asked for; ValueError where --sigma does not belong to it."""
    from pyrovae import likelihoods

    if config.sigma is None:
        return likelihoods.make(config.likelihood)
    if config.likelihood != likelihoods.Normal.name:
        raise ValueError(f"--sigma is for the normal likelihood, not for {config.likelihood}")
    return likelihoods.make(config.likelihood, sigma=config.sigma)


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


def _checkpoint(folder: Path, splits: "Splits") -> dict[str, Any]:
    """Returns the state to go on from; StateError where it was trained on other data."""
    from pyrovae import runs, storage

    state = storage.load_state(folder / runs.CHECKPOINT)
    if "optimizer" not in state or state.get("data") != splits.protocol:
        raise storage.StateError(f"{folder / runs.CHECKPOINT} is no training state of these data")
    return state


def _writer(folder: Path, vae: "VAE", splits: "Splits", config: dict[str, Any]) -> Any:
    """Returns the callback that keeps the run folder up to date, an epoch at a time.

    It is first called when all input has been found good: only then does a new run replace an old.
    """
    from pyrovae import runs, storage

    def write(state: dict[str, Any]) -> None:
        epoch = len(state["elbo"])
        if epoch == 0:
            runs.clear(folder)
        if state["best_epoch"] == epoch:
            runs.save(vae, folder, epoch=epoch)
        storage.save_state(folder / runs.CHECKPOINT, {**state, "data": splits.protocol})
        runs.write_config(folder, config)
        runs.write_metrics(folder, state)

    return write


if __name__ == "__main__":
    sys.exit(main())
