"""A web page in Chromium without a window, driven through two pipes: no driver, no port."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 1400, 1100
OPTIONS = [
    "--headless",
    "--no-sandbox",  # of a container's root
    "--disable-gpu",
    "--use-angle=swiftshader",  # for WebGL
    "--enable-unsafe-swiftshader",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--lang=en",
    f"--window-size={WIDTH},{HEIGHT}",
    "--remote-debugging-pipe",
]


class Browser:
    """Speaks the DevTools protocol: messages of JSON, each ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()

        def as_expected() -> None:  # Chromium reads commands from 3 and answers to 4
            ours = [os.dup(commands), os.dup(answers)]
            for number, pipe in zip((3, 4), [os.dup(pipe) for pipe in ours], strict=True):
                os.dup2(pipe, number)

        self._process = subprocess.Popen(
            [program, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(3, 4),
            preexec_fn=as_expected,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._input = os.fdopen(self._answers, "rb")
        self._pending = b""
        self._number = 0
        self._page: dict[str, str] = {}

    def open(self, address: str) -> None:
        """A page of its own: what another one left in its memory is gone."""
        target = self._call("Target.createTarget", url=address)
        attached = self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._page = {"sessionId": attached["sessionId"]}

    def evaluate(self, script: str) -> Any:
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        return answer["result"].get("value")

    def picture(self) -> np.ndarray:
        """What is seen, uint8 ``[H, W, 3]``."""
        return np.asarray(Image.open(io.BytesIO(self.png())).convert("RGB"))

    def png(self) -> bytes:
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._input.close()
        os.close(self._commands)

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if not method.startswith("Target."):
            message |= self._page
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == self._number:
                assert "result" in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        while b"\0" not in self._pending:
            more = self._input.raw.read(1 << 20)
            assert more, f"Chromium has ended ({self._process.poll()})"
            self._pending += more
        message, _, self._pending = self._pending.partition(b"\0")
        return message


@contextmanager
def browsing(program: str, profile: Path) -> Iterator[Browser]:
    browser = Browser(program, profile)
    try:
        yield browser
    finally:
        browser.close()


def wait_for(seen: Any, seconds: float) -> bool:
    """Whether ``seen()`` becomes true in time."""
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.25)
    return True
