"""VisualDL's web page on runs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_fit.errors import UserError
from resnet_fit.reports.run_names import Runs
from resnet_fit.runtime import import_visualdl


def serve(runs: Sequence[Path], host: str, port: int) -> None:
    """Serve the page until interrupted.

    Every page that has something to show gets a tab. VisualDL by itself reports each start to its
    makers, and has pages that install packages; those are off.

    Raises:
        UserError: no folder, no records in it, or the port is taken.
    """
    for run in runs:
        if not run.is_dir():
            raise UserError(f"{run}: there is no such folder of runs")
        if not any(Runs([run]).walk("")):
            raise UserError(f"{run}: no VisualDL records in it or below it, and no profile")
    _check_free(host, port)
    import_visualdl()
    from visualdl.server.app import create_app
    from visualdl.server.args import ParseArgs

    _show(Runs(runs))
    # Which folders are read is up to `Runs`; None for tabs means those that have data.
    settings = {"host": host, "port": port, "telemetry": False, "component_tabs": None}
    app = create_app(ParseArgs(logdir=["runs"], **settings))
    for chatty in ("werkzeug", "vdl_logger"):  # a line for each request and each run
        logging.getLogger(chatty).setLevel(logging.ERROR)
    signal.signal(signal.SIGINT, _stop)
    print(f"VisualDL shows {', '.join(map(str, runs))} at http://{host}:{port}/app/", flush=True)
    app.run(host=host, port=port, threaded=False)


def _show(runs: Runs) -> None:
    """Let VisualDL read these runs, and nothing else, from now on."""
    from visualdl.component.profiler import profiler_reader
    from visualdl.io import bfile

    bfile.default_file_factory.register_filesystem("", runs)
    load = profiler_reader.load_profiler_json  # which opens files by itself
    profiler_reader.load_profiler_json = lambda name: load(runs.path(name))


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
