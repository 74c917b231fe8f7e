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
import time
from tasks.progress import Progress
from tasks.step import configure_logging
configure_logging()
with Progress("ingested", 20) as progress:
    for _ in range(20):
        time.sleep(0.05)
        progress.add(1)
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
    assert "left" not in text
