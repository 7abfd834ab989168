"""Pickles of plain data are read; those that would run code or end the process are refused."""

from __future__ import annotations

import collections
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from resnet_fit.errors import UserError
from resnet_fit.restricted_pickle import PickledArray, Unpickler


def read(content: bytes) -> object:
    return Unpickler(io.BytesIO(content)).load()


class Made:
    """Pickles as a call of ``function``, whose result is given ``state``."""

    def __init__(self, function: object, arguments: tuple, state: object = None) -> None:
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
def test_plain_data_are_read(protocol):
    data = {
        "text": ["a", "ß", ""],
        b"bytes": b"\xff\0",
        3: (1, -2, 70_000, 2**40, True, None, (), ((1,), [])),
        "number": 0.5,
        "more": {"x": list(range(300))},
    }
    if protocol < 2:  # whose long integers are text without end
        data[3] = (1, -2, 70_000, True, None, (), ((1,), []))
    assert read(pickle.dumps(data, protocol)) == data
    ordered = collections.OrderedDict(a=1, b=2)
    assert read(pickle.dumps(ordered, protocol)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("type_", ["u1", ">i4", "<f4", "f8", "f2", "bool"])
def test_arrays_are_read(protocol, type_):
    array = np.arange(12).reshape(3, 4).astype(type_)
    for given in (array, np.asfortranarray(array)):
        made = read(pickle.dumps({"a": given}, protocol))
        assert isinstance(made, dict)
        assert isinstance(made["a"], PickledArray)
        np.testing.assert_array_equal(made["a"].value, array)
        assert made["a"].value.dtype == array.dtype


def array_of(element: object) -> Made:
    """An array of a type that says of its bytes that they are addresses of objects."""
    reconstruct = np.empty(0).__reduce__()[0]
    raw = b"\x11" * 8 * 10
    return Made(reconstruct, (np.ndarray, (0,), b"b"), (1, (10,), element, False, raw))


def type_of(code: str, *state: object) -> Made:
    return Made(np.dtype, (code, 0, 1), state)


OBJECT = type_of("O8", 3, "|", None, None, None, -1, -1, 63)
# Each of these ended the process when Python's and numpy's own readers had it.
FATAL: dict[str, tuple[bytes, str]] = {
    "objects without a flag": (
        pickle.dumps(array_of(type_of("O8", 3, "|", None, None, None, -1, -1, 0)), 2),
        "holds an array of type 'O8'",
    ),
    "objects in a field": (
        pickle.dumps(array_of(type_of("V8", 3, "|", None, ("a",), {"a": (OBJECT, 0)}, 8, 1, 0)), 2),
        "holds an array of type 'V8'",
    ),
    "objects in a subarray": (
        pickle.dumps(array_of(type_of("V8", 3, "|", (OBJECT, (1,)), None, None, 8, 1, 0)), 2),
        "holds an array of type 'V8'",
    ),
    "a key of a million nested tuples": (
        b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns.",
        "a key of type tuple",
    ),
    "the same in an ordered dictionary": (
        b"\x80\x02ccollections\nOrderedDict\n]((" + b")" + b"\x85" * 1_000_000 + b"Nte\x85R.",
        "a key of type tuple",
    ),
    "an object of the number 2**32 - 1": (b"\x80\x02Nr\xff\xff\xff\xff.", "None"),
}
READ = """
import io, pickle, sys
from resnet_fit.restricted_pickle import Unpickler
for content in pickle.load(sys.stdin.buffer):
    try:
        print(Unpickler(io.BytesIO(content)).load(), flush=True)
    except Exception as error:
        print(error, flush=True)
"""


def test_what_would_end_the_process_is_one_line():
    contents = pickle.dumps([content for content, _ in FATAL.values()])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", READ], input=contents, stdout=subprocess.PIPE, env=environment
    )
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    for line, (_, message) in zip(lines, FATAL.values(), strict=True):
        assert message in line


class Options:
    """Stands for a class that a file of weights also holds an object of."""

    def __init__(self) -> None:
        self.rate = 0.1


class Ignored:
    def set_state(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("protocol", [2, 4])
def test_more_names_may_be_admitted(protocol):
    content = pickle.dumps({"options": Options()}, protocol)
    with pytest.raises(UserError, match=r"asks for '.*Options'"):
        read(content)
    admitted = {(Options.__module__, "Options"): Ignored}
    made = Unpickler(io.BytesIO(content), admitted).load()
    assert isinstance(made["options"], Ignored)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(os.getcwd), "asks for 'posix.getcwd': only plain data are read"),
        (pickle.dumps({1: Made(eval, ("1",))}), "asks for .*eval"),
        (b"\x80\x04\x8c\x03a\nb\x8c\x01c\x93.", r"asks for 'a\\nb\.c'"),
    ],
)
def test_names_are_refused(content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({1, 2}),
        pickle.dumps(bytearray(9), protocol=5),
        b"\x80\x02ccollections\nOrderedDict\n}U\x0c__defaults__)sb.",  # a state for a function
        b"\x80\x02]K\x00K\x01s.",  # an item of a list
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x02U\x01aQ.",  # an object outside the pickle
        b"",
    ],
)
def test_other_steps_are_refused(content):
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        read(content)
