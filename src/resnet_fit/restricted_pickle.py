"""A safe unpickler for plain data: numbers, text, bytes, lists, tuples, dictionaries, arrays.

A pickle is a program. It may call any function of any module, and even without that it can crash
the process: by an array whose description does not match its memory, or by a dictionary key nested
so deeply that its hash overflows the stack. So only the opcodes of plain data are executed, every
global name is replaced by a function of this module, and array dtypes are built from checked text.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from resnet_fit.errors import UserError

OPCODES = (
    *("PROTO", "FRAME", "MARK", "STOP", "POP"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG1"),
    *("FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),  # of Python 2
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BINPERSID"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
)
BYTE_ORDERS = ("<", ">", "=", "|")


class Unpickler(pickle._Unpickler):
    """Reads one object from a stream; byte strings of Python 2 become text, one character a byte.

    Arrays become `PickledArray`. The base class is the unpickler in Python, not the faster one in
    C, in which opcodes cannot be refused.

    Args:
        stream: a binary file.
        admitted: functions for more global names, by module and name. Their arguments may be any
            plain data. Their results may have a method ``set_state`` for the pickled state.
        persistent_load: resolves references to objects outside the pickle; refused by default.

    Raises:
        UserError: by `load`, if the file uses a global name that is not admitted, or has an array
            of anything but numbers.
        Exception: by `load`, of any kind, if the pickle is damaged.
    """

    # Attributes of the base class that its type annotations lack.
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(
        self,
        stream: Any,
        admitted: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
        persistent_load: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__(stream, encoding="latin1")
        self._admitted = ADMITTED | dict(admitted or {})
        if persistent_load is not None:
            self.persistent_load = persistent_load  # type: ignore[assignment]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._admitted:
            asked = _shown(f"{module}.{name}")
            raise UserError(f"asks for {asked}: only plain data are read from a pickle.")
        return self._admitted[module, name]

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("an opcode that plain data do not need")

    def _dict(self) -> None:
        items = self.pop_mark()  # first: it also replaces `append` by that of the stack below
        self.append(_dictionary(_pairs(items)))

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._update([(key, value)])

    def _set_items(self) -> None:
        self._update(_pairs(self.pop_mark()))

    def _update(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise pickle.UnpicklingError("items for something that is no dictionary")
        target.update(_dictionary(pairs))

    def _new_object(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.append(function(*arguments))

    def _build(self) -> None:
        """Set the state of the last object; torch's extra state of a dictionary is ignored."""
        state, target = self.stack.pop(), self.stack[-1]
        if hasattr(target, "set_state"):  # the result of an admitted function
            target.set_state(*state)
        elif not isinstance(target, dict):
            raise pickle.UnpicklingError("a state for something that has none")

    dispatch: ClassVar[Any] = {
        **dict.fromkeys(range(256), _refuse),
        **{
            code: pickle._Unpickler.dispatch[code]
            for code in (getattr(pickle, name)[0] for name in OPCODES)
        },
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.NEWOBJ[0]: _new_object,
        pickle.BUILD[0]: _build,
    }


class PickledArray:
    """A numpy array in a pickle; ``value`` exists once its state is set."""

    value: np.ndarray

    def set_state(
        self, _version: Any, shape: Any, element: Any, fortran_order: Any, raw: Any
    ) -> None:
        if not isinstance(element, _PickledType) or not isinstance(raw, (str, bytes)):
            raise pickle.UnpicklingError("an array without a type or without bytes")
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        flat = np.frombuffer(raw, element.value)
        self.value = flat.reshape(shape, order="F" if fortran_order else "C")


class _PickledType:
    """The dtype of an array."""

    def __init__(self, code: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch("[iu][1248]|f[248]|b1", code)):
            raise UserError(f"holds an array of type {_shown(code)}: only numbers are read.")
        self.value = np.dtype(code)

    def set_state(self, _version: Any, byte_order: Any, *_: Any) -> None:
        if byte_order not in BYTE_ORDERS:
            raise pickle.UnpicklingError("a type of an unknown byte order")
        self.value = self.value.newbyteorder(byte_order)


def _pairs(items: list[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(items[::2], items[1::2], strict=True)


def _dictionary(pairs: Iterable[tuple[Any, Any]] = ()) -> dict[Any, Any]:
    made = {}
    for key, value in pairs:
        if not isinstance(key, (str, bytes, int)):
            raise pickle.UnpicklingError(f"a key of type {type(key).__name__}")
        made[key] = value
    return made


def _array(*_: Any) -> PickledArray:
    return PickledArray()


def _type(code: Any, *_: Any) -> _PickledType:
    return _PickledType(code)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocol 2 stores bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {_shown(encoding)} is not allowed")
    return text.encode("latin1")


def _shown(value: Any) -> str:
    """Text, shortened to one line; for other values, which may be huge, their type."""
    return repr(value[:80]) if isinstance(value, str) else f"a {type(value).__name__}"


def _array_class() -> None:
    """Placeholder for numpy.ndarray, which pickles name but do not call."""


ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encode,
    ("builtins", "tuple"): tuple,
    ("collections", "OrderedDict"): _dictionary,
    ("numpy", "ndarray"): _array_class,
    ("numpy", "dtype"): _type,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy._core.multiarray", "_reconstruct"): _array,
}
