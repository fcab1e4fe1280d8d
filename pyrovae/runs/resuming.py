"""What a run may go on with: which options may change, and what is written down of it.

What the model is, what it is trained for and where its random streams began stays, or the run
would be none that anybody could make again; how it is trained may change, and a note says since
when. All else, such as the estimators of the evidence, is what is asked for now.

The file `checkpoint.safetensors` holds, in the form of `pyrovae.storage`, the state of training
after the last epoch that was finished ("parameters", "buffers", "best", "optimizer", "schedule",
"averages", "averaged_steps", "random", "elbo", "valid_elbo", "criterion", "grad_norm",
"seconds" and "best_epoch") and, beside it, what it is compared by:
"data" (the protocol of the data), "config" (the options as in config.yaml), "notes" (a list of
sentences) and "program" (the digest of a program that is no model, else "").
"""

__all__ = ["Checkpoint", "read_checkpoint"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pyrovae import storage
from pyrovae.errors import StateError
from pyrovae.runs.config import read_config
from pyrovae.runs.contents import CHECKPOINT
from pyrovae.svi.training import State

# data and binarization, which stay too, are in the protocol
FIXED = "model", "model_options", "likelihood", "sigma", "z_dim", "hidden_dims", "seed"
FIXED += "objective", "optimizer", "criterion", "criterion_rows"
Config = Mapping[str, Any]  # of values as YAML has them
CHANGING = "lr", "lr_schedule", "batch_size", "clip_norm", "ema"  # in effect from then on


class Checkpoint(NamedTuple):
    """The state that `fit` goes on from, and what earlier epochs were trained with.

    Attributes:
        state: As `fit` gave it to its callback, with what the run wrote beside it.
        notes: Sentences of a run whose options changed on the way, in order: "up to epoch 100: lr
            0.001".
    """

    state: State
    notes: list[str]


def read_checkpoint(
    folder: Path, data: Mapping[str, object], config: Config, program: str
) -> Checkpoint:
    """Returns where a run stands, for one that goes on with this configuration.

    An option that the run was begun without, such as one that came later, counts as unchanged.

    Args:
        folder: Of the run.
        data: The protocol of the data.
        config: What is asked for now, resolved.
        program: The digest of a program that is no model; a run may go on with a changed one.

    Raises:
        StateError: (a `ValueError`) If the state is not there, broken, or of other data, or an
            option would have no effect: of the model, or because no epoch is left.
    """
    path = folder / CHECKPOINT
    state = storage.load_state(path)
    done = _done(state, data)
    if done is None:
        raise StateError(f"{path} is no training state of these data")
    before = state.get("config") or read_config(folder)
    notes = state.get("notes", [])
    if not (isinstance(before, dict) and isinstance(notes, list)):
        raise StateError(f"{path} is no training state of these data")
    changed = _changed(before, config)
    _check_epochs(state, config, changed)
    notes = list(map(str, notes))
    if changed and done:
        had = ", ".join(f"{name} {before[name]}" for name in changed)
        notes.append(f"up to epoch {done}: {had}")
    if done and state.get("program", program) != program:
        notes.append(f"up to epoch {done}: the program as it was before")
    return Checkpoint(state, notes)


def _done(state: Mapping[str, object], data: Mapping[str, object]) -> int | None:
    """Returns how many epochs a state of training has done; `None` of no state of the data.

    Args:
        state: As it was read.
        data: The protocol of the data at hand, of which the state's own has to be a part.
    """
    known, elbo = state.get("data"), state.get("elbo")
    of_data = isinstance(known, dict) and all(k in data and data[k] == known[k] for k in known)
    whole = isinstance(state.get("optimizer"), dict) and isinstance(state.get("best_epoch"), int)
    return len(elbo) if of_data and whole and isinstance(elbo, list) else None


def _changed(before: Config, config: Config) -> list[str]:
    """Returns the options that are others than the run's; StateError where one must not be.

    Args:
        before: The configuration that the run was begun with.
        config: What is asked for now.
    """
    changed = [k for k in (*FIXED, *CHANGING) if before.get(k, config[k]) != config[k]]
    for name in (k for k in changed if k in FIXED):
        more = "; another seed for the evaluation is one of pyrovae.evidence" * (name == "seed")
        raise StateError(
            f"{_option(name)} is {config[name]} but the run was begun with {before[name]}; "
            f"resume with that{more}"
        )
    return changed


def _check_epochs(state: State, config: Config, changed: list[str]) -> None:
    """Raises StateError for fewer epochs than are done, or a change that none is left for.

    Args:
        state: Of the training.
        config: What is asked for now.
        changed: Names of the options that are others than the run's.
    """
    done, epochs = len(state["elbo"]), config["num_epochs"]
    if epochs < done:
        raise StateError(
            f"--num-epochs is {epochs} but the run has {done} epochs; give at least that"
        )
    patience = config["patience"] or epochs + 1
    if changed and done and (done == epochs or done - state["best_epoch"] >= patience):
        raise StateError(
            f"{_option(changed[0])} would change nothing, as no epoch is left to train; raise "
            "--num-epochs, or --patience where that ended it"
        )


def _option(name: str) -> str:
    """Returns an option as a command line has it: "--clip-norm" of "clip_norm"."""
    return f"--{name.replace('_', '-')}"
