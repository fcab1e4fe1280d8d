"""Parameters that programs tell Pyro of: met as they run, and kept out of its store."""

__all__ = ["CleanStore", "Parameters", "sha256"]

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self, TypedDict

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyrovae.program.sites import Values


class Statement(TypedDict):
    """A `pyro.param` statement of a run.

    Attributes:
        name: Its name in Pyro's store.
        args: The name, and the initial value where the statement gives one.
        value: What it gave back, constrained.
    """

    name: str
    args: tuple[object, ...]
    value: Tensor


class Parameters(Messenger):
    """Records the parameters of the programs run inside it.

    Where a module is registered under a name that another holds in Pyro's global store, the
    store's tensor and the module's own are both met; the one with a gradient is meant. Tensors are
    the unconstrained ones, as an optimizer changes them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[int, tuple[str, Tensor]] = {}

    def _pyro_post_param(self, msg: Statement) -> None:
        for tensor in (_given(msg), _stored(msg)):
            self._found.setdefault(id(tensor), (msg["name"], tensor))

    def forget(self, names: Iterable[str]) -> None:
        """Drops what was recorded under these names, where it is made anew."""
        gone = set(names)
        self._found = {k: v for k, v in self._found.items() if v[0] not in gone}

    def named(self) -> Values:
        """Returns the parameters by name, without the instance numbers of `Model.register`.

        Names that would then be two parameters' keep the number; should they still be equal, the
        later one gets an apostrophe.
        """
        met = [name for name, _ in self._found.values()]
        found = [
            (k, p) for k, p in self._found.values() if met.count(k) == 1 or p.grad is not None
        ]
        short = [re.sub(r"#\d+", "", name) for name, _ in found]
        named: Values = {}
        for (name, p), s in zip(found, short, strict=True):
            name = s if short.count(s) == 1 else name
            while name in named:
                name += "'"
            named[name] = p
        return named


class CleanStore(Messenger):
    """Takes what only mirrors a module's parameters out of Pyro's global store when it is left.

    Entries that stood there before stay, and so does what `pyro.param` created. Without this,
    every module ever registered would live on in the store, and a second one of the same name
    would read the first one's entries.
    """

    def __enter__(self) -> Self:
        self._keep = set(pyro.get_param_store().keys())
        return super().__enter__()

    def _pyro_post_param(self, msg: Statement) -> None:
        # a program that hands over a fresh Parameter in every run has it nowhere but in the store
        if "$$$" not in msg["name"] and _given(msg) is not _stored(msg):
            self._keep.add(msg["name"])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        lines: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, lines)
        store = pyro.get_param_store()
        for name, tensor in list(store.named_parameters()):
            if isinstance(tensor, torch.nn.Parameter) and name not in self._keep:
                # Pyro takes out the name, then misses a tensor that two names had in common
                with suppress(KeyError):
                    del store[name]


def _given(msg: Statement) -> Tensor:
    """Returns the module's parameter that a `pyro.param` statement was given, or the store's."""
    given = msg["args"][1] if len(msg["args"]) > 1 else None
    return given if isinstance(given, torch.nn.Parameter) else _stored(msg)


def _stored(msg: Statement) -> Tensor:
    """Returns the unconstrained tensor behind what a `pyro.param` statement gave back."""
    value = msg["value"]
    return value if isinstance(value, torch.nn.Parameter) else unconstrained(value)


def unconstrained(value: Tensor) -> Tensor:
    """Returns the tensor behind a value that Pyro's store gave out; the value where there is none.

    Pyro hangs it on the value as a weak reference.
    """
    behind = getattr(value, "unconstrained", None)
    return value if behind is None else behind()


def sha256(parameters: Values) -> str:
    """Returns the SHA-256 of parameters: of their names, in order of the alphabet, and bytes.

    Args:
        parameters: By name, on any device; types and shapes count by their bytes alone.
    """
    digest = hashlib.sha256()
    for name, p in sorted(parameters.items()):
        digest.update(name.encode() + p.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
