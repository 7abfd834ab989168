"""VisualDL's web page on the curves of runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_fit.errors import UserError
from resnet_fit.runtime import import_visualdl

TABS = ["scalar", "text", "hyper_parameters", "histogram", "image"]
# Of an evaluation.
TABS += ["pr_curve", "roc_curve", "embeddings"]


def serve(runs: Sequence[Path], host: str, port: int) -> None:
    """Serve the page until interrupted.

    VisualDL by itself reports each start to its makers; that is switched off here.

    Raises:
        UserError: no folder, no records in it, or the port is taken.
    """
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: there is no such folder of runs")
        if not any(run.rglob("*vdlrecords*")):
            raise UserError(f"{run}: no VisualDL records in it or below it")
    _check_free(host, port)
    import_visualdl()
    from visualdl.server.app import create_app
    from visualdl.server.args import ParseArgs

    settings = {
        "logdir": [str(run) for run in runs],
        "host": host,
        "port": port,
        "telemetry": False,
        "component_tabs": TABS,
    }
    app = create_app(ParseArgs(**settings))
    for chatty in ("werkzeug", "vdl_logger"):  # a line for each request and each run
        logging.getLogger(chatty).setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, _stop)
    print(f"VisualDL shows {', '.join(map(str, runs))} at http://{host}:{port}/app/", flush=True)
    app.run(host=host, port=port, threaded=False)


def _stop(*_: object) -> None:
    """End at once: threads of VisualDL's would keep the process alive."""
    print("resnet-fit: interrupted", file=sys.stderr, flush=True)
    os._exit(130)


def _check_free(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port)):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot serve at {host}:{port} ({reason}); choose another --port"
        ) from None
