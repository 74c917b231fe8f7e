"""A step: a user's mistake is one line and an exit code, and an orphan ends itself."""

import os
import subprocess
import sys
import time

import pytest

PRELUDE = "from tasks.step import run_step\n"


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    """A folder of its own for each test: two steps in one folder wait for each other."""
    monkeypatch.chdir(tmp_path)


def run(body: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PRELUDE + body]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_step_that_works_exits_0_and_logs_to_standard_error():
    done = run("import logging\nrun_step(lambda: logging.getLogger('tasks').info('12 images'))")
    assert done.returncode == 0
    assert done.stderr.endswith("INFO tasks: 12 images\n")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("error", "code"), [("DataError", 2), ("ValidationFailed", 3), ("ParamsError", 2)]
)
def test_a_users_mistake_is_one_line_without_a_traceback(error, code):
    done = run(
        f"from tasks.errors import {error}\n"
        f"def main():\n    raise {error}('the folder is empty')\nrun_step(main)"
    )
    assert done.returncode == code
    assert done.stderr == "error: the folder is empty\n"


def test_a_defect_keeps_its_traceback():
    done = run("def main():\n    return 1 / 0\nrun_step(main)")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


def test_a_full_disk_is_said_in_words():
    """/dev/full refuses every write with ENOSPC, as a full disk does."""
    done = run("def main():\n    open('/dev/full', 'w', buffering=1).write('x\\n')\nrun_step(main)")
    assert done.returncode == 4
    assert done.stderr.startswith("error: the disk is full")
    assert "Free space and run again" in done.stderr


def test_another_system_error_is_not_called_a_full_disk():
    done = run("def main():\n    open('/nowhere/x')\nrun_step(main)")
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stderr


def test_an_interrupt_exits_130_in_silence():
    done = run("def main():\n    raise KeyboardInterrupt\nrun_step(main)")
    assert (done.returncode, done.stderr) == (130, "")


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(child.stdout.readline(), end="", flush=True)
time.sleep(60)
"""
CHILD = """
import os, time
from tasks.step import run_step
def main():
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.05)
run_step(main)
"""


def test_a_step_ends_when_its_parent_is_killed():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        step = int(parent.stdout.readline())
        assert alive(step)
        parent.kill()
    for _ in range(300):
        if not alive(step):
            return
        time.sleep(0.1)
    os.kill(step, 9)
    pytest.fail("the step outlived its parent by 30 seconds")


SLOW_CHILD = """
import os, time
import tasks
parent = os.getppid()
print(os.getpid(), flush=True)
while os.getppid() == parent:
    time.sleep(0.02)
from tasks.step import run_step
run_step(lambda: open("written", "w").close())
"""


def test_a_step_whose_parent_is_killed_while_it_imports_does_nothing(tmp_path):
    command = [sys.executable, "-c", PARENT, SLOW_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        step = int(parent.stdout.readline())
        parent.kill()
    for _ in range(300):
        if not alive(step):
            break
        time.sleep(0.1)
    assert not alive(step)
    assert not (tmp_path / "written").exists()


HOLDER = """
import time
from tasks.step import run_step
def main():
    print("working", flush=True)
    time.sleep(2)
    open("first", "w").close()
run_step(main)
"""


def test_a_step_waits_for_the_one_that_an_earlier_run_left_behind():
    """Its leftovers must not be removed, nor its outputs replaced, under its hands."""
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "working\n"
        body = "import os\nrun_step(lambda: print(os.path.exists('first')))"
        second = [sys.executable, "-c", PRELUDE + body]
        done = subprocess.run(second, capture_output=True, text=True)
    assert done.stdout == "True\n"
    assert "waiting for it to end" in done.stderr


def alive(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
