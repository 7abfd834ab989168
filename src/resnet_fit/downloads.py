"""Downloads, verified by checksum."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from resnet_fit.errors import UserError
from resnet_fit.files import may_write
from resnet_fit.terminal import status_console

TIMEOUT_SECONDS = 20
# What `fetch` raises if a download fails.
DOWNLOAD_ERRORS = (OSError, HTTPException)


def download(what: str, urls: Sequence[str], target: Path, md5: str, otherwise: str) -> None:
    """Download a file from the first of its addresses that has it; see `fetch`.

    Args:
        what: the file, as messages name it.
        urls: its addresses, tried in turn.
        target: the path to write; missing folders are created.
        md5: its checksum, in hexadecimal.
        otherwise: what a user can do if no address has it.

    Raises:
        UserError: it cannot be downloaded, or nothing may be written (`files.no_new_files`).
    """
    if not may_write():
        raise UserError(
            f"{what} is not on this machine yet: a run downloads it to {target.parent}, and a dry "
            "run downloads nothing"
        )
    reasons = []
    for url in urls:
        try:
            fetch(url, target, md5)
            return
        except DOWNLOAD_ERRORS as error:
            reasons.append(f"{url}: {_reason_of(error)}")
    raise UserError(
        f"{what} is not on this machine and could not be downloaded ({'; '.join(reasons)}): "
        f"{otherwise}"
    )


def fetch(url: str, target: Path, md5: str) -> None:
    """Download a file, with a progress bar if standard error is a terminal.

    The file is verified before it is moved to ``target``, so no partial file is left there.

    Args:
        url: its address.
        target: the path to write; missing folders are created.
        md5: its checksum, in hexadecimal.

    Raises:
        OSError, HTTPException: it cannot be downloaded or written, or has another checksum.
    """
    from resnet_fit.live_line import counted  # slow to import

    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        ):
            total = int(response.headers.get("Content-Length") or 0)
            with counted(status_console(), target.name, total, _megabytes) as advance:
                while block := response.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    advance(len(block))
        if digest.hexdigest() != md5:
            raise OSError(f"md5 {digest.hexdigest()}, expected {md5}")
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _reason_of(error: BaseException) -> str:
    """Why a download failed, in one line."""
    own = isinstance(error, HTTPError)  # its text has the status code; others hide it in `reason`
    reason = error if own else getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
