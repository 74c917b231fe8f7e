"""Files are whole or not there, even when the disk is full or the process is killed."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.files import (
    append_line,
    atomic_write,
    sha256,
    sha256_json,
    write_directory,
    write_json,
    write_text,
)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_write_makes_its_folders_and_replaces_what_was_there(tmp_path):
    path = tmp_path / "a/b/c.txt"
    write_text(path, "old")
    write_text(path, "neu: ü")
    assert path.read_text(encoding="utf-8") == "neu: ü"
    assert names(path.parent) == ["c.txt"]


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "new\n"), ("", "new\n"), ("old\n", "old\nnew\n"), ('{"to', '{"to\nnew\n')],
)
def test_a_line_is_added_whole_after_one_that_a_crash_tore(tmp_path, before, after):
    path = tmp_path / "a/log"
    if before is not None:
        write_text(path, before)
    append_line(path, "new")
    assert path.read_text() == after


def test_an_error_leaves_the_old_file_and_no_other(tmp_path):
    write_text(tmp_path / "a", "old")

    def interrupted() -> None:
        with atomic_write(tmp_path / "a") as stream:
            stream.write(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_json_is_canonical_and_refuses_nan(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [None, "ü"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, "ü"], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text())["b"] == 1


def test_a_directory_is_swapped_whole(tmp_path):
    target = tmp_path / "out"
    write_directory(target, lambda to: (to / "old").write_text("1"))
    write_directory(target, lambda to: (to / "new").write_text("2"))
    assert names(target) == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_directory_that_cannot_be_built_leaves_the_old_one(tmp_path):
    target = tmp_path / "out"
    write_directory(target, lambda to: (to / "old").write_text("1"))

    def fill(to: Path) -> None:
        (to / "new").write_text("2")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_directory(target, fill)
    assert names(target) == ["old"]
    assert names(tmp_path) == ["out"]


FULL = """
import resource, signal, sys
from pathlib import Path
from tasks.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    with atomic_write(Path(sys.argv[1])) as stream:
        for _ in range(100):
            stream.write(b"x" * 10_000)
except OSError as error:
    print(error.errno)
"""


def test_a_write_the_system_refuses_leaves_nothing(tmp_path):
    """RLIMIT_FSIZE: the kernel itself stops the write at 100,000 bytes."""
    write_text(tmp_path / "model", "old")
    command = [sys.executable, "-c", FULL, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert (tmp_path / "model").read_text() == "old"
    assert names(tmp_path) == ["model"]


SLOW = """
import sys, time
from pathlib import Path
from tasks.files import atomic_write
with atomic_write(Path(sys.argv[1])) as stream:
    stream.write(b"half")
    stream.flush()
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "model", "old")
    command = [sys.executable, "-c", SLOW, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.send_signal(signal.SIGKILL)
    assert (tmp_path / "model").read_text() == "old"


READER = """
import sys, time
from pathlib import Path
path, seen = Path(sys.argv[1]), set()
print("reading", flush=True)
end = time.monotonic() + 3
while "9" not in seen and time.monotonic() < end:
    text = path.read_text()
    assert len(text) == 200_000 and len(set(text)) == 1, len(text)
    seen.add(text[0])
"""


def test_a_reader_sees_old_or_new_never_a_mixture(tmp_path):
    path = tmp_path / "a"
    write_text(path, "0" * 200_000)
    command = [sys.executable, "-c", READER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        reader.stdout.readline()
        for digit in "123456789":
            write_text(path, digit * 200_000)
            time.sleep(0.01)
    assert reader.returncode == 0


def test_hashes_are_the_known_ones(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    done = subprocess.run(["sha256sum", tmp_path / "a"], capture_output=True, text=True)
    assert sha256(tmp_path / "a") == done.stdout.split()[0]
    assert sha256_json({"b": [1, 2.5], "a": None}) == sha256_json({"a": None, "b": [1, 2.5]})
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})


def test_text_written_is_readable_by_the_group_as_usual(tmp_path):
    """A bundle is served by another account: no mode of our own."""
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644
