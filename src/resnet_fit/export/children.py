"""Child processes for libraries that print to standard output, exit the process, or may crash."""

from __future__ import annotations

import re
import subprocess
import sys

from resnet_fit.child import code_for_child
from resnet_fit.errors import RunFailed
from resnet_fit.files import readable


def command_of(module: str, *arguments: object) -> list[str]:
    """The command of a child process that calls ``main(*arguments)`` of a module."""
    code = code_for_child(f"from {module} import main; main(*sys.argv[1:])")
    return [sys.executable, "-c", code, *map(str, arguments)]


def call(module: str, *arguments: object) -> None:
    """Call ``main(*arguments)`` of a module in a child process.

    Raises:
        RunFailed: it failed; the message has its last error line.
    """
    done = subprocess.run(
        command_of(module, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise RunFailed(ending(done.returncode, done.stdout))


def ending(code: int, output: bytes) -> str:
    """How a child process ended, with its last error line, or else its last line of output."""
    lines = [line.strip() for line in output.decode("utf-8", "replace").splitlines()]
    said = [line for line in lines if line]
    errors = [line for line in said if re.match(r"\[ERROR\]|[\w.]*(Error|Exception): ", line)]
    how = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
    return readable(": ".join([how, *(errors or said)[-1:]]))
