"""What a program has learned: its parameters and its modules' buffers, found and put back."""

__all__ = ["buffers_of", "check_kinds", "put_back", "state_of"]

from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from pyrovae.digest import Reached
from pyrovae.errors import StateError
from pyrovae.program.contexts import aside
from pyrovae.program.parameters import Parameters
from pyrovae.program.sites import Values


class _Met(Parameters):
    """Parameters, of which no two may go by one name."""

    def check(self) -> None:
        names = Counter(name for name, _ in self._found.values())
        if twice := [name for name, count in names.items() if count > 1]:
            raise ValueError(
                f"two tensors go by the name {twice[0]!r}, one in the program's module and one in "
                "Pyro's store; register the module under a name of its own, or call "
                "pyro.clear_param_store() first"
            )


def state_of(
    model: Callable[..., object], guide: Callable[..., object] | None, *data: object
) -> tuple[Values, Values]:
    """Returns a program's parameters and buffers by name, having run it once on the data.

    Parameters are what `pyro.param`, `pyro.module` and `PyroModule` tell Pyro of, unconstrained;
    buffers all other tensors in the state of modules that the program reaches. Weights, buffers
    and random streams stay as they are; what the program makes in its first run is made.

    Args:
        model: A Pyro callable of `*data`.
        guide: Another, or `None`.
        data: What both are run on, once.

    Raises:
        ValueError: If two parameters go by one name.
    """
    with aside(), _Met() as met:
        for fn in (guide, model):
            if fn is not None:
                fn(*data)
        met.check()
    parameters = met.named()
    return parameters, buffers_of(model, guide, parameters)


def buffers_of(
    model: Callable[..., object], guide: Callable[..., object] | None, parameters: Values
) -> Values:
    """Returns tensors in the state of a program's modules that are none of its parameters.

    They are named by the class of the outermost module, a number where there are several, and the
    path in it: "Net.norm.running_mean", "Net1.norm.running_mean".

    Args:
        model: A Pyro callable.
        guide: Another, or `None`.
        parameters: Those found already, by name.
    """
    modules = Reached(model, guide, read=False).modules
    inner = {id(m) for module in modules for m in module.modules() if m is not module}
    known = {id(p) for p in parameters.values()}
    counts: Counter[str] = Counter()
    buffers: Values = {}
    for module in modules:
        if id(module) in inner:
            continue
        kind = type(module).__name__
        name = f"{kind}{counts[kind] or ''}"
        counts[kind] += 1
        for path, tensor in module.state_dict(keep_vars=True).items():
            if isinstance(tensor, Tensor) and id(tensor) not in known:
                buffers[f"{name}.{path}"] = tensor
                known.add(id(tensor))
    return buffers


@torch.no_grad()
def put_back(held: Values, values: Mapping[str, Tensor], what: str) -> None:
    """Copies values into a program's tensors of the same names.

    Args:
        held: The program's tensors, by name.
        values: What goes into them.
        what: The latter in the words of an error.

    Raises:
        StateError: (a `ValueError`) If names, shapes or types differ: nothing is copied then.
    """
    check_kinds(held, values, what)
    for name, value in values.items():
        held[name].copy_(value)


def check_kinds(
    held: Values,
    values: Mapping[str, Tensor],
    what: str,
    advice: str = "give the program that was saved",
) -> None:
    """Raises StateError where names, shapes or types are others than the program's.

    Args:
        held: The program's tensors, by name.
        values: Others.
        what: The latter in the words of an error.
        advice: What to do, in its words.
    """
    theirs, ours = _kinds(values), _kinds(held)
    if theirs != ours:
        names = sorted(n for n in theirs.keys() | ours.keys() if theirs.get(n) != ours.get(n))
        found = [f"{n} {theirs.get(n, 'missing')} for {ours.get(n, 'none')}" for n in names[:3]]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        raise StateError(
            f"{what} are not those of this program: {'; '.join(found)}{more}; {advice}"
        )


def _kinds(values: Mapping[str, Tensor]) -> dict[str, str]:
    return {
        k: f"{str(v.dtype).removeprefix('torch.')} {tuple(v.shape)}" for k, v in values.items()
    }
