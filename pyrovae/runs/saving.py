"""What is learned, in a folder: a model, or the parameters and buffers of any program.

The file `model.safetensors` holds, in the form of `pyrovae.storage`, of a model

    {"class": "model", "name": name, "config": {...}, "weights": {...}, "facts": {...}}

and of a program

    {"class": "program", "parameters": {...}, "buffers": {...}, "facts": {...}}

with tensors by name. A name stands for a class that is known here: no file has code imported.
"""

__all__ = [
    "MODEL",
    "Pair",
    "check_loadable",
    "holds_program",
    "load",
    "save",
    "saved_sha256",
    "write_model",
    "write_state",
]

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyrovae import storage
from pyrovae.checks import shown
from pyrovae.digest import Reached
from pyrovae.models.base import Model, named
from pyrovae.program import put_back, state_of
from pyrovae.rng import seeded
from pyrovae.threads import one_at_a_time

MODEL = "model.safetensors"
CALLS = 100  # of torch that making a model takes for each of its tensors, at most
SPARE = 2**20  # numbers in a tensor that is made on the way, beside those that are saved
Pair = tuple[Callable[..., Any], Callable[..., Any] | None]


@one_at_a_time
def save(what: Model | Pair, folder: str | Path, *data: Any, **facts: Any) -> None:
    """Writes a model, or what a program has learned, into a folder, as `model.safetensors`.

    Nothing is pickled. Of a program `(model, guide)` these are its parameters, those of
    `pyro.param`, `pyro.module` and `PyroModule`, and the buffers of its modules, by name: `load`
    puts them back into a program that is made anew. They are found by running it once on the data.

    Args:
        what: A model; or a pair `(model, guide)`, the guide `None` where there is none.
        folder: Made if it does not exist; the file is written atomically.
        data: A program's arguments, such as a batch of what it was trained on.
        facts: JSON values that `load` ignores, such as the epoch.

    Raises:
        TypeError: If `what` is neither.
        ValueError: If a model is not what its configuration makes (its class has no name of its
            own, a network was replaced): it could not be loaded.

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
    if isinstance(what, Model):
        check_loadable(what)
        write_model(folder, what, **facts)
    else:
        write_state(folder, *state_of(*_pair(what, "save"), *_given(data, "save")), **facts)


def check_loadable(model: Model) -> None:
    """Raises ValueError where `load` could not make a model again.

    Args:
        model: To be saved; its configuration is tried out, with its weights.
    """
    if why := _not_as_configured(model):
        raise ValueError(
            f"this {type(model).__name__} could not be loaded again: {why}; let config() say all "
            "that its constructor needs, or save what it has learned as a program's, "
            "pv.save((m.model, m.guide), folder, x), and put it back with pv.load(folder, "
            "(m.model, m.guide), x)"
        )


def write_model(folder: str | Path, model: Model, **facts: Any) -> None:
    """Writes a model as `save` does, one that `check_loadable` has passed.

    Args:
        folder: Made if it does not exist.
        model: Its configuration, weights and buffers are written.
        facts: JSON values that `load` ignores.

    Raises:
        OSError: If it cannot be written.
    """
    state = {"class": "model", "name": model.name, "config": model.config()}
    state["weights"] = model.state_dict()
    storage.save_state(Path(folder) / MODEL, {**state, "facts": facts})


def write_state(
    folder: str | Path, parameters: dict[str, Tensor], buffers: dict[str, Tensor], **facts: Any
) -> None:
    """Writes a program's parameters and buffers, by name, as `save` does.

    Args:
        folder: Made if it does not exist.
        parameters: Tensors of any shapes, of positive ones and their like the unconstrained
            numbers.
        buffers: Tensors of the program's modules.
        facts: JSON values that `load` ignores.

    Raises:
        OSError: If it cannot be written.
    """
    state = {"class": "program", "parameters": parameters, "buffers": buffers}
    storage.save_state(Path(folder) / MODEL, {**state, "facts": facts})


def holds_program(folder: str | Path) -> bool:
    """Returns whether `save` wrote what a program has learned, rather than a model.

    Args:
        folder: That of `save`, or a run's.

    Raises:
        StateError: If it has no `model.safetensors` that can be read.
    """
    return storage.load_state(Path(folder) / MODEL).get("class") == "program"


def saved_sha256(folder: str | Path) -> str:
    """Returns the SHA-256 of the model in a folder: its configuration, weights and buffers.

    Facts do not count, such as the epoch: equal models have equal digests.

    Args:
        folder: That of `save`, or a run's.

    Returns:
        64 hexadecimal digits.

    Raises:
        StateError: If it has no `model.safetensors` that can be read.
    """
    state = storage.load_state(Path(folder) / MODEL)
    return storage.digest({k: v for k, v in state.items() if k != "facts"})


@overload
def load(folder: str | Path) -> Model: ...
@overload
def load(folder: str | Path, program: Pair, *data: Any) -> Pair: ...
@one_at_a_time
def load(folder: str | Path, program: Pair | None = None, *data: Any) -> Model | Pair:
    """Returns the model of a folder that `save` or the main job wrote, in `eval()` mode.

    Given a program `(model, guide)` and data, what was saved of such a program is put back into it
    instead, into its modules and Pyro's store, and the pair is returned.

    Args:
        folder: That of `save`, or a run's.
        program: `(model, guide)`, the guide `None` where there is none; `None` for a model.
        data: The program's arguments, which is run once to find where its parameters are.

    Raises:
        StateError: (a `ValueError`) If there is no such file, it is truncated, not ours, or holds
            parameters or buffers of other names, shapes or types than the program's; if the class
            of the model or its likelihood has not been imported.

    Example:
        >>> import tempfile, pyrovae as pv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(pv.VAE(x_dim=4, z_dim=2), folder)
        ...     load(folder).z_dim
        2
    """
    path = Path(folder) / MODEL
    state = storage.load_state(path)
    if state.get("class") == "VAE":  # as it was written when there were no others
        state |= {"class": "model", "name": "vae"}
    kind, wanted = state.get("class", "nothing"), "program" if program else "model"
    if kind != wanted:
        advice = {
            "model": "; load it with pv.load(folder) alone",
            "program": "; give the program too: pv.load(folder, (model, guide), *data)",
        }.get(str(kind), "")
        raise storage.StateError(f"{path} holds a {shown(kind)}, not a {wanted}{advice}")
    if program is None:
        return _model(state, path)
    parameters, buffers = state_of(*_pair(program, "load"), *_given(data, "load"))
    saved = {k: v for part in ("parameters", "buffers") for k, v in _tensors(state, part, path)}
    put_back({**parameters, **buffers}, saved, f"parameters and buffers in {path}")
    return program


def _model(state: dict[str, Any], path: Path) -> Model:
    """Returns the model that was saved; one that its weights are not enough for is not made.

    Args:
        state: What the file holds.
        path: Of the file, for messages.

    Raises:
        StateError: If its class is not known here, or does not take that configuration or those
            weights.
    """
    weights, name = dict(_tensors(state, "weights", path)), state.get("name")
    try:
        cls = named(name if isinstance(name, str) else shown(name))
    except ValueError as e:
        raise storage.StateError(f"{path} holds a model of a class that is not here: {e}") from e
    try:
        model = _made(cls, state["config"], weights)
        if any(not p.is_floating_point() for p in model.parameters()):
            raise ValueError("weights that are no floats")
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        why = _last_line(e)
        raise storage.StateError(f"{path} holds no {cls.__name__} that can be made: {why}") from e
    return model.eval()


def _made(cls: type[Model], config: dict[str, Any], weights: dict[str, Tensor]) -> Any:
    """Returns the model of a configuration with these weights, in their types.

    It is first made without memory, where sizes that are not those of the weights cost nothing.

    Args:
        cls: The model's class.
        config: Of its `config()`.
        weights: Of its `state_dict()`, by name.

    Raises:
        KeyError, TypeError, ValueError, RuntimeError: If they do not go together.
    """
    with torch.device("meta"), _Bounded(weights):
        cls.from_config(config).load_state_dict(weights, assign=True)
    with seeded(0):  # initial weights are drawn
        model = cls.from_config(config)
    model.load_state_dict(weights, assign=True)
    return model


class _Bounded(TorchFunctionMode):
    """Ends the making of a model that is larger than its weights are.

    A file may say that a model has a billion layers, or a layer of as many units, and be small. Of
    N tensors of weights 100 (N + 10) calls of torch are the most, and no tensor may have a million
    numbers more than all weights have.

    Args:
        weights: Those that were saved, by name.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.calls = CALLS * (len(weights) + 10)
        self.held = sum(map(Tensor.numel, weights.values()))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one function of torch, where it is not one too many."""
        self.calls -= 1
        if self.calls < 0:
            raise ValueError("it has more layers than there are weights")
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.numel() > self.held + SPARE:
            raise ValueError(
                f"it has a tensor of {made.numel():,} numbers, and {self.held:,} are there"
            )
        return made


def _last_line(error: Exception) -> str:
    """Returns the last line of what an error says, where torch says what does not fit."""
    return f"{error}".strip().splitlines()[-1].strip()


def _tensors(state: dict[str, Any], name: str, path: Path) -> Iterable[tuple[str, Tensor]]:
    """Returns the named tensors of a part of what was saved.

    Args:
        state: What the file holds.
        name: Of the part: "weights", "parameters" or "buffers".
        path: Of the file, for messages.

    Raises:
        StateError: If it has no such part, or one of other things.
    """
    part = state.get(name)
    if not (isinstance(part, dict) and all(isinstance(v, Tensor) for v in part.values())):
        raise storage.StateError(f"{path} has no {name}, which are tensors by name; save it anew")
    return part.items()


def _pair(what: Any, name: str) -> Pair:
    """Returns what was given as a pair; TypeError where it is none.

    Args:
        what: Hopefully `(model, guide)`.
        name: Of the function that it was given to.
    """
    if not (isinstance(what, tuple) and len(what) == 2 and callable(what[0])):
        raise TypeError(
            f"{name} was given a {type(what).__name__}; give a Model, or a pair (model, "
            "guide) and its data"
        )
    return what


def _given(data: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    """Returns the data of a program; TypeError without any, as it could not be run.

    Args:
        data: Arguments of the program.
        name: Of the function that they were given to.
    """
    if not data:
        raise TypeError(
            f"{name} runs a program once to find its parameters; give its data after it, such as "
            "x[:100]"
        )
    return data


def _not_as_configured(model: Model) -> str:
    """Returns why a model's configuration would make another one than it is, or "".

    The model is made again of its configuration, as JSON keeps it, and its weights. Then its
    networks and its attributes are compared by digest, which sees a replaced activation or a
    patched method that no weights show.

    Args:
        model: To be saved.
    """
    cls = type(model)
    known = next((c for c in cls.__mro__ if "name" in vars(c)), None)
    if known is not cls:
        of = f"is not {known.__name__} but {cls.__name__}" if known else f"is {cls.__name__}"
        return f"its class {of}, which has no name of its own"
    try:
        weights = model.state_dict()
        again = _made(cls, json.loads(json.dumps(model.config())), weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as e:
        return f"its configuration makes another ({_last_line(e)})"
    for ours, theirs in zip(model.modules(), again.modules(), strict=False):
        theirs.training = ours.training
    parts, made = dict(model.named_children()), dict(again.named_children())
    if odd := sorted(parts.keys() ^ made.keys()):
        return f"its {odd[0]} is not one that its configuration makes"
    for name, child in made.items():
        ours, theirs = Reached(parts[name]), Reached(child)
        if ours.unknown or ours.sha256 != theirs.sha256:
            return f"its {name} is not the one that its configuration makes"
    for name, value in vars(model).items():
        default = vars(again).get(name, getattr(cls, name, value))
        if name != "_modules" and Reached(value).sha256 != Reached(default).sha256:
            return f"its {name} was replaced"
    return ""
