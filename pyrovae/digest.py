"""A digest of all that a callable's results depend on: source, values it holds, versions."""

__all__ = ["Reached"]

import dis
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, cached_property
from hashlib import sha256
from importlib.util import resolve_name
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import NamedTuple, cast
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from pyrovae.sources import VERSIONED, library, own_source, source

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
PLAIN += (range, torch.dtype, torch.device, torch.layout, torch.memory_format)
PARTS: dict[type, tuple[str, ...]] = {
    MethodType: ("__func__", "__self__"),
    property: ("fget", "fset", "fdel"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    cached_property: ("func",),
    type(cache(len)): ("__wrapped__",),
}
BUILT_IN = (
    *(BuiltinFunctionType, ClassMethodDescriptorType, GetSetDescriptorType),
    *(MemberDescriptorType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType),
)
# equal ones may be one object or several, as the interpreter likes
SHARED = tuple, frozenset, CodeType
# what a class has besides its code and values
ASIDE = {"__dict__", "__weakref__", "__doc__", "_abc_impl", "__annotations__", "__annotate_func__"}
ASIDE |= {"__firstlineno__", "__static_attributes__", "__annotations_cache__"}


class _Used(NamedTuple):
    """A user's module, and the names that code which reads it knows.

    Attributes:
        module: The module.
        names: Of those among its attributes that the code names; others decide nothing.
    """

    module: ModuleType
    names: frozenset[str]


class Reached:
    """What is reached from objects, as far as it decides what calling them gives.

    Functions and classes of the user's own modules count with their bytecode, the whole source of
    those modules, and what they read: closures, defaults, globals, imports, class attributes.
    Objects count with their state, tensors and arrays with their numbers. Of libraries (the
    standard one and what is installed) the version counts, of other installed packages the files'
    sizes and times.

    An object is entered once: where it is met again, its number in the order of meeting counts, so
    that the digest tells two equal objects from one that is held twice, and cycles end.

    Args:
        roots: Such as a model and a guide.
        read: Whether the digest is wanted, for which all tensors are read.

    Attributes:
        modules: Every `torch.nn.Module` reached, in order.
        unknown: What cannot be digested, by type: with any, a digest says nothing.

    Example:
        >>> def model(x, scale=1.0):
        ...     return x * scale
        >>> before = Reached(model).sha256
        >>> model.__defaults__ = (2.0,)
        >>> Reached(model).sha256 == before
        False
    """

    def __init__(self, *roots: object, read: bool = True) -> None:
        self.modules: list[torch.nn.Module] = []
        self.unknown: list[str] = []
        self._read, self._hash = read, sha256()
        self._seen: dict[object, int] = {}
        self._alive: list[object] = []  # so that no other object takes over an id
        self._put(sys.version, torch.get_default_dtype(), *map(library, VERSIONED), own_source())
        todo = [*reversed(roots)]
        while todo:
            todo += reversed(self._enter(todo.pop()))

    @property
    def sha256(self) -> str:
        """The digest, in hexadecimal: equal for what gives equal results, in another process too.

        That holds where `unknown` is empty, on the same versions of Python and of the libraries.
        """
        return self._hash.hexdigest()

    def _put(self, *words: object) -> None:
        """Adds words to the digest, as text; nothing where no digest is wanted."""
        if self._read:
            self._hash.update(repr([str(w) for w in words]).encode())

    def _enter(self, obj: object) -> list[object]:
        """Takes down what an object is, and returns what has to be known of it besides.

        Args:
            obj: Anything; numbers, text and their like are known at once, what was met before by
                its number, and of all others the kind counts, and how many parts they have.
        """
        kind = type(obj)
        if kind in PLAIN:
            self._put(kind.__name__, repr(obj))
            return []
        key = (id(obj.module), obj.names) if isinstance(obj, _Used) else id(obj)
        if key in self._seen:
            self._put("again", self._seen[key])
            return []
        if kind not in SHARED:
            self._seen[key] = len(self._seen)
            self._alive.append(obj)
        try:
            children = self._parts(obj)
        except Exception:  # whatever an object's own methods may raise
            self.unknown.append(kind.__name__)
            return []
        self._put(kind.__module__, kind.__qualname__, len(children))
        return children

    def _parts(self, obj: object) -> list[object]:
        """Takes down an object by its kind, and returns what it is made of.

        The kinds are asked in this order: a class is callable, too, and a network an object.

        Raises:
            Exception: Whatever an object of an unknown kind raises where its state is asked for.
        """
        if isinstance(obj, Tensor):
            return self._numbers(obj)
        if isinstance(obj, np.ndarray | np.generic):
            return self._array(np.asarray(obj))
        if type(obj) in (list, tuple):
            return list(cast(Iterable[object], obj))
        if type(obj) in (dict, MappingProxyType):
            return [part for item in cast(Mapping[object, object], obj).items() for part in item]
        if type(obj) in (set, frozenset):
            return self._unordered(cast(Iterable[object], obj))
        if type(obj) in PARTS:
            return [getattr(obj, name) for name in PARTS[type(obj)]]
        kinds: list[tuple[type | tuple[type, ...], Callable[..., list[object]]]] = [
            (CodeType, self._code),
            (FunctionType, self._function),
            (type, self._class),
            (_Used, self._used),
            (ModuleType, self._module),
            (torch.nn.Module, self._network),
            (BUILT_IN, self._built_in),
        ]
        for kind, parts in kinds:
            if isinstance(obj, kind):
                return parts(obj)
        if isinstance(obj, ref):
            return [obj()]
        if isinstance(obj, torch.Generator):
            return [obj.get_state()]
        return self._state(obj)

    def _numbers(self, tensor: Tensor) -> list[object]:
        """Takes down a tensor: type, shape, kind of device, and its bytes; it holds no more.

        Args:
            tensor: On any device; its bytes are those of a dense copy on the CPU, so that its
                strides do not count. Its gradient does not, either.
        """
        self._put(tensor.dtype, tuple(tensor.shape), tensor.device.type)
        if self._read:
            plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
            self._hash.update(plain.reshape(-1).view(torch.uint8).numpy().data)
        return []

    def _array(self, array: np.ndarray) -> list[object]:
        """Takes down an array likewise; of one that holds objects, these are returned.

        Args:
            array: Of any type and shape; a scalar of NumPy's is one without dimensions.
        """
        self._put(array.dtype, array.shape)
        if array.dtype.hasobject:
            return array.ravel().tolist()
        if self._read:
            self._hash.update(array.tobytes())
        return []

    def _unordered(self, items: Iterable[object]) -> list[object]:
        """Takes down a set by its members' digests, sorted: its own order changes by process.

        A member's numbers of meeting begin anew, as they would depend on the order.
        """
        each = [Reached(item, read=self._read) for item in items]
        for one in each:
            self.modules += one.modules
            self.unknown += one.unknown
        self._put(*sorted(one.sha256 for one in each))
        return []

    def _code(self, code: CodeType) -> list[object]:
        """Takes down what code does, and returns its constants, with the code of inner functions.

        Its file's name and its line numbers do not count here.
        """
        self._put(code.co_name, code.co_code.hex(), code.co_names, code.co_varnames, code.co_flags)
        self._put(code.co_freevars, code.co_cellvars, code.co_argcount, code.co_kwonlyargcount)
        return list(code.co_consts)

    def _function(self, fn: FunctionType) -> list[object]:
        """Takes down where a function stands, and returns its code and all that it can read.

        Of a library's, that is what it holds (defaults, attributes, closure); of the user's own,
        globals and imports too that its code, or code inside it, names.
        """
        self._put(fn.__module__, fn.__qualname__, version := library(fn.__module__))
        cells = [_content(cell) for cell in fn.__closure__ or ()]
        held = [fn.__defaults__, fn.__kwdefaults__, vars(fn), *cells]
        if version is not None:
            return held
        self._put(source(fn.__module__))
        codes = list(_nested(fn.__code__))
        names = frozenset(name for code in codes for name in code.co_names)
        package = fn.__globals__.get("__package__") or ""
        used = [fn.__globals__[name] for name in sorted(names & fn.__globals__.keys())]
        used += [module for code in codes for module in self._imported(code, package)]
        used = [_Used(v, names) if isinstance(v, ModuleType) else v for v in used]
        return [fn.__code__, *held, *used]

    def _imported(self, code: CodeType, package: str) -> Iterator[ModuleType | str]:
        """Yields the modules that code imports as it runs, of libraries name and version.

        A user's own module that is not loaded yet cannot be read: it is noted among `unknown`.

        Args:
            code: Of a function.
            package: The one that relative imports start from.
        """
        before: list[object] = [None, None]
        for one in dis.get_instructions(code):
            if one.opname == "IMPORT_NAME":
                name = resolve_name("." * cast(int, before[-2]) + one.argval, package)
                if (version := library(name)) is not None:
                    yield f"{name} {version}"  # whether it is imported already or not
                elif name in sys.modules:
                    yield sys.modules[name]
                else:
                    self.unknown.append(f"module {name}, not yet imported")
            before.append(one.argval)

    def _class(self, cls: type) -> list[object]:
        """Takes down where a class stands, and returns its bases and attributes.

        Of a library's, only those bases that are the user's own: its version stands for the rest.

        Args:
            cls: Whose docstring and annotations do not count here.
        """
        self._put(cls.__module__, cls.__qualname__, version := library(cls.__module__))
        kinds = [base for base in cls.__mro__[1:] if base is not object]
        kinds += [type(cls)] if type(cls) is not type else []
        if version is not None:
            return [base for base in kinds if library(base.__module__) is None]
        self._put(source(cls.__module__))
        return [kinds, {k: v for k, v in vars(cls).items() if k not in ASIDE}]

    def _used(self, used: _Used) -> list[object]:
        """Takes down a module, and returns those of its values that code names.

        Args:
            used: The module and the names; modules among the values are searched for the same
                names, as `a.b.c` in code names them one after the other.
        """
        name = used.module.__name__
        self._put(name, version := library(name))
        if version is not None:
            return []
        self._put(source(name))
        held = vars(used.module)
        values = [held[name] for name in sorted(used.names & held.keys())]
        return [_Used(v, used.names) if isinstance(v, ModuleType) else v for v in values]

    def _module(self, module: ModuleType) -> list[object]:
        """Returns a user's module with all its names: of a value held, any may be asked for."""
        return [_Used(module, frozenset(n for n in vars(module) if not n.startswith("__")))]

    def _network(self, network: torch.nn.Module) -> list[object]:
        """Notes a network among `modules`, and returns its class and its attributes."""
        self.modules.append(network)
        return [type(network), vars(network)]

    def _built_in(self, fn: BuiltinFunctionType) -> list[object]:
        """Takes down a function written in C, and returns the object it is bound to, if any.

        Args:
            fn: Such as `math.sqrt`, or the `append` of a list, which counts with that list.
        """
        self._put(getattr(fn, "__module__", None), fn.__qualname__)
        owner = getattr(fn, "__self__", None)
        return [] if isinstance(owner, ModuleType | type | None) else [owner]

    def _state(self, obj: object) -> list[object]:
        """Returns what would be needed to make an object again, as pickle has it.

        Raises:
            TypeError: Where there is no way, as of an open file or a lock.
        """
        reduced = obj.__reduce_ex__(2)
        if isinstance(reduced, str):
            self._put(reduced)
            return [type(obj)]
        how, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        return [type(obj), how, arguments, state, list(items or ()), dict(pairs or ())]


def _content(cell: CellType) -> object:
    """Returns what a cell of a closure holds, `...` where nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:  # not yet filled
        return ...


def _nested(code: CodeType) -> Iterator[CodeType]:
    """Yields code, and the code of all functions, classes and comprehensions inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _nested(const)
