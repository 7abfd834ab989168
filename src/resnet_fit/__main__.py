"""``python -m resnet_fit`` is ``resnet-fit``."""

import os
import sys


def leave_working_directory() -> None:
    """Look for modules where the command does: Python looks in the working directory first.

    A queue.py there would take the place of Python's own.
    """
    here = os.getcwd()
    package_is_here = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) == here
    if sys.path[0] == here and not package_is_here:
        del sys.path[0]


if __name__ == "__main__":
    leave_working_directory()
    from resnet_fit.cli import main

    sys.exit(main())
