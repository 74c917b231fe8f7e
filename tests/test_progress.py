"""A long job shows a bar on a terminal, and log lines with rate and time left elsewhere."""

import logging
import os
import pty
import re
import subprocess
import sys

import pytest

from tasks.progress import Progress

ON_A_TERMINAL = """
import logging, time
from tasks.progress import Progress
from tasks.step import configure_logging
configure_logging()
with Progress("ingested", 20) as progress:
    for _ in range(20):
        time.sleep(0.05)
        progress.add(1)
        if _ == 10:
            logging.getLogger("train").info("epoch 1/2")
"""


def test_log_lines_give_rate_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 2.0, 6.0, 8.0])
    monkeypatch.setattr("tasks.progress.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), Progress("ingested", 1000) as progress:
        progress.add(10)
        progress.add(50)
        progress.add(940)
    assert caplog.messages == [
        "ingested 60 of 1000 (10/s, 1:34 left)",
        "ingested 1000 of 1000 (125/s)",
    ]


def test_what_was_done_before_is_no_part_of_the_rate(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr("tasks.progress.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), Progress("trained", 1000, 500, 15.0) as progress:
        progress.add(100)
        progress.add(100)
        progress.add(-100)  # an epoch is repeated
    assert caplog.messages == ["trained 700 of 1000 (10/s, 0:30 left)"]


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", ON_A_TERMINAL], stderr=theirs, env=environment):
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"ingested .*\b1?\d/20 \d+/s 0:00:0\d", text)
    assert "ingested 20 of 20" in text
    assert re.search(r"[\r\n]\d\d:\d\d:\d\d INFO train: epoch 1/2 *\r?\n", text)
    assert "left" not in text
