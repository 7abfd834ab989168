"""Where there is no GPU, the tests of one are skipped, and say why."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.slow


def pytest_says(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", *words],
        cwd=REPOSITORY,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 5), done.stdout + done.stderr  # 5: nothing was selected
    return done.stdout


def test_without_a_gpu_they_are_skipped_with_the_reason():
    said = pytest_says("-m", "gpu", "tests/gpu/test_gpu_runs.py")
    assert re.search(r"no GPU to test on: training\.device: received gpu, but", said)
    assert re.search(r"^\d+ skipped", said.splitlines()[-1])


def test_they_are_not_among_the_others():
    assert re.search(r"^\d+ deselected", pytest_says("tests/gpu").splitlines()[-1])
