"""A child process finds the modules that its parent finds."""

import subprocess
import sys

from resnet_fit.child import code_for_child


def run(code, folder):
    command = [sys.executable, "-c", code_for_child(code)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def test_the_working_directory_is_not_looked_into(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("print('from the working directory')")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    assert run("import queue; print(queue.Queue.__name__)", tmp_path) == "Queue\n"
    monkeypatch.syspath_prepend("")
    assert run("import queue", tmp_path) == "from the working directory\n"


def test_modules_of_any_place_are_found(tmp_path, monkeypatch):
    place = tmp_path / "it's \\ ü"
    place.mkdir()
    (place / "mine.py").write_text("VALUE = 3")
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setattr(sys, "path", [place, *sys.path])  # Python passes over what is no text
    assert run("import mine; print(mine.VALUE)", tmp_path) == "3\n"
    assert run("print(sys.path)", tmp_path) == f"{sys.path[1:]}\n"
