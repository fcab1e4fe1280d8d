"""What is learned, in a folder: a VAE, or the parameters and buffers of any program."""

__all__ = ["MODEL", "Pair", "holds_program", "load", "save", "saved_sha256", "write_state"]

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

from torch import Tensor

from pyrovae import storage
from pyrovae.digest import Reached
from pyrovae.models.vae import VAE
from pyrovae.program import put_back, state_of
from pyrovae.rng import seeded
from pyrovae.threads import one_at_a_time

MODEL = "model.safetensors"
Pair = tuple[Callable[..., Any], Callable[..., Any] | None]


@one_at_a_time
def save(what: VAE | Pair, folder: str | Path, *data: Any, **facts: Any) -> None:
    """Writes a VAE, or what a program has learned, into a folder: `model.safetensors`, no pickle.

    Of a program `(model, guide)` these are its parameters, those of `pyro.param`, `pyro.module`
    and `PyroModule`, and the buffers of its modules, by name: `load` puts them back into a program
    that is made anew. They are found by running it once on the data.

    Args:
        what: A VAE; or a pair `(model, guide)`, the guide `None` where there is none.
        folder: Made if it does not exist; the file is written atomically.
        data: A program's arguments, such as a batch of what it was trained on.
        facts: JSON values that `load` ignores, such as the epoch.

    Raises:
        TypeError: If `what` is neither.
        ValueError: If the VAE is not what its configuration says (a subclass, another decoder):
            it could not be loaded.

    Example:
        >>> import tempfile, pyro, torch
        >>> def model(x):
        ...     pyro.param("width", torch.tensor(2.0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save((model, None), folder, torch.zeros(3))
        ...     pyro.clear_param_store()
        ...     pair = load(folder, (model, None), torch.zeros(3))
        >>> pyro.param("width").item()
        2.0
    """
    if isinstance(what, VAE):
        if why := _not_as_configured(what):
            raise ValueError(
                f"this {type(what).__name__} could not be loaded again: {why}; save what it has "
                "learned as a program's, pv.save((vae.model, vae.guide), folder, x), and put it "
                "back with pv.load(folder, (vae.model, vae.guide), x)"
            )
        state = {"class": "VAE", "config": what.config(), "weights": what.state_dict()}
        storage.save_state(Path(folder) / MODEL, {**state, "facts": facts})
    else:
        write_state(folder, *state_of(*_pair(what, "save"), *_given(data, "save")), **facts)


def write_state(
    folder: str | Path, parameters: dict[str, Tensor], buffers: dict[str, Tensor], **facts: Any
) -> None:
    """Writes a program's parameters and buffers, by name, as `save` does."""
    state = {"class": "program", "parameters": parameters, "buffers": buffers}
    storage.save_state(Path(folder) / MODEL, {**state, "facts": facts})


def holds_program(folder: str | Path) -> bool:
    """Returns whether `save` wrote what a program has learned; StateError without its file."""
    return storage.load_state(Path(folder) / MODEL).get("class") == "program"


def saved_sha256(folder: str | Path) -> str:
    """Returns the SHA-256 of the model in a folder: its configuration, weights and buffers."""
    state = storage.load_state(Path(folder) / MODEL)
    return storage.digest({k: v for k, v in state.items() if k != "facts"})


@overload
def load(folder: str | Path) -> VAE: ...
@overload
def load(folder: str | Path, program: Pair, *data: Any) -> Pair: ...
@one_at_a_time
def load(folder: str | Path, program: Pair | None = None, *data: Any) -> VAE | Pair:
    """Returns the VAE of a folder that `save` or the main job wrote, in `eval()` mode.

    Given a program `(model, guide)` and data, what was saved of such a program is put back into it
    instead, into its modules and Pyro's store, and the pair is returned.

    Raises:
        StateError: (a `ValueError`) If there is no such file, it is truncated, not ours, or holds
            parameters or buffers of other names, shapes or types than the program's; if the VAE's
            likelihood is a class that has not been imported.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(VAE(x_dim=4, z_dim=2), folder)
        ...     load(folder).z_dim
        2
    """
    path = Path(folder) / MODEL
    state = storage.load_state(path)
    kind, wanted = state.get("class", "no model"), "VAE" if program is None else "program"
    if kind != wanted:
        advice = {
            "VAE": "; load it with pv.load(folder) alone",
            "program": "; give the program too: pv.load(folder, (model, guide), *data)",
        }.get(kind, "")
        raise storage.StateError(f"{path} holds {kind!r}, not a {wanted}{advice}")
    if program is None:
        return _vae(state, path)
    parameters, buffers = state_of(*_pair(program, "load"), *_given(data, "load"))
    saved = {k: v for part in ("parameters", "buffers") for k, v in _tensors(state, part, path)}
    put_back({**parameters, **buffers}, saved, f"parameters and buffers in {path}")
    return program


def _vae(state: dict[str, Any], path: Path) -> VAE:
    """Returns the VAE that was saved; one that its weights are not enough for is not even made."""
    weights = dict(_tensors(state, "weights", path))
    try:
        config = state["config"]
        widths = [config["x_dim"], *config["hidden_dims"], config["z_dim"]]
        if len(widths) > len(weights):
            raise ValueError(f"{len(widths) - 1} layers of which there are {len(weights)} tensors")
        needed, held = (
            sum(i * o for i, o in pairwise(widths)),
            sum(map(Tensor.numel, weights.values())),
        )
        if needed > held:
            raise ValueError(f"layers of {needed:,} weights, and {held:,} are there")
        with seeded(0):
            vae = VAE.from_config(config)
        vae.load_state_dict(weights, assign=True)  # in the type that they were saved in
        if any(not p.is_floating_point() for p in vae.parameters()):
            raise ValueError("weights that are no floats")
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        raise storage.StateError(f"{path} holds no VAE that can be made: {_last_line(e)}") from e
    return vae.eval()


def _last_line(error: Exception) -> str:
    return f"{error}".strip().splitlines()[-1].strip()


def _tensors(state: dict[str, Any], name: str, path: Path) -> Iterable[tuple[str, Tensor]]:
    """Returns the named tensors of a part of what was saved."""
    part = state.get(name)
    if not (isinstance(part, dict) and all(isinstance(v, Tensor) for v in part.values())):
        raise storage.StateError(f"{path} has no {name}, which are tensors by name; save it anew")
    return part.items()


def _pair(what: Any, name: str) -> Pair:
    if not (isinstance(what, tuple) and len(what) == 2 and callable(what[0])):
        raise TypeError(
            f"{name} was given a {type(what).__name__}; give a VAE, or a pair (model, guide) and "
            f"its data"
        )
    return what


def _given(data: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not data:
        raise TypeError(
            f"{name} runs a program once to find its parameters; give its data after it, such as "
            "x[:100]"
        )
    return data


def _not_as_configured(vae: VAE) -> str:
    """Returns why a VAE's configuration would make another one than it is, or ""."""
    if type(vae) is not VAE:
        return f"its class is not VAE but {type(vae).__name__}"
    try:
        with seeded(0):  # initial weights are drawn
            again = VAE.from_config(json.loads(json.dumps(vae.config())))
        again.load_state_dict(vae.state_dict(), assign=True)
    except (TypeError, ValueError, RuntimeError) as e:
        return f"its configuration makes another ({_last_line(e)})"
    for ours, theirs in zip(vae.modules(), again.modules(), strict=False):
        theirs.training = ours.training
    for name, child in again.named_children():
        ours, theirs = Reached(getattr(vae, name)), Reached(child)
        if ours.unknown or ours.sha256 != theirs.sha256:
            return f"its {name} is not the one that its configuration makes"
    for name, value in vars(vae).items():
        made = vars(again).get(name, getattr(VAE, name, value))
        if name != "_modules" and Reached(value).sha256 != Reached(made).sha256:
            return f"its {name} was replaced"
    return ""
