"""Files that have not changed since an earlier ingest are not read again; all others are."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tasks.data.ingest import ingest
from tasks.data.journal import Journal, read_journal
from tasks.data.known import known_file
from tasks.data.sources.folders import find_files

MAX_PIXELS = 10_000


@pytest.fixture
def images(tmp_path: Path, digits_folder: Path) -> Path:
    """200 digits, written long enough ago to be sure of them."""
    root = tmp_path / "images"
    for file in sorted(digits_folder.glob("*/*.png"))[::9][:200]:
        (root / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / file.parent.name)
    time.sleep(2.1)  # ctime cannot be set
    return root


@pytest.fixture
def known(tmp_path: Path, images: Path) -> Path:
    return known_file(tmp_path / "home", images, MAX_PIXELS)


def described(images: Path, known: Path | None = None) -> pa.Table:
    return ingest("mine", find_files(images), MAX_PIXELS, known=known)


def again(images: Path, known: Path, caplog: pytest.LogCaptureFixture) -> tuple[pa.Table, str]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        return described(images, known), caplog.text


def save(path: Path, grey: int) -> None:
    Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)


def test_what_is_unchanged_is_not_read_again(images, known, caplog):
    first = described(images, known)
    assert first.equals(described(images))
    second, said = again(images, known, caplog)
    assert "200 files are unchanged, 0 are new or changed" in said
    assert second.equals(first)


def test_new_changed_and_removed_files_are_noticed(images, known, caplog):
    described(images, known)
    files = sorted(images.glob("*/*.png"))
    files[3].unlink()
    save(files[5], 90)
    save(files[0].with_name("0.png"), 91)
    (files[-1].parent / "broken.png").write_bytes(b"no image")
    shutil.move(files[7], images / "9" / "moved.png")
    table, said = again(images, known, caplog)
    assert table.equals(described(images))
    assert "197 files are unchanged, 4 are new or changed" in said


def test_a_change_that_keeps_size_and_time_is_noticed(images, known):
    """As a tool that restores times does: the change time cannot be set."""
    described(images, known)
    file = sorted(images.glob("*/*.png"))[0]
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert described(images, known).equals(described(images))


def test_a_file_just_written_is_read_again(images, known, caplog):
    save(images / "1" / "new.png", 50)
    described(images, known)
    _, said = again(images, known, caplog)
    assert "200 files are unchanged, 1 are new or changed" in said


def test_a_damaged_file_of_rows_costs_only_time(images, known, caplog):
    first = described(images, known)
    known.write_bytes(known.read_bytes()[:500])
    second, said = again(images, known, caplog)
    assert "is damaged" in said
    assert second.equals(first)


def test_another_limit_or_folder_has_rows_of_its_own(tmp_path):
    names = {
        known_file(tmp_path, tmp_path / folder, limit) for folder in ("a", "b") for limit in (1, 2)
    }
    assert len(names) == 4


KILLED = """
import logging, sys
from pathlib import Path
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    found = find_files(Path(sys.argv[1]))
    ingest("mine", found, int(sys.argv[2]), int(sys.argv[3]), known=Path(sys.argv[4]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_an_ingest_that_is_killed_goes_on_where_it_was(tmp_path, digits_folder, caplog, workers):
    images = tmp_path / "many"
    for copy in range(4):
        shutil.copytree(digits_folder, images / str(copy))
    time.sleep(2.1)
    known = known_file(tmp_path / "home", images, MAX_PIXELS)
    journal = known.with_suffix(".journal")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [str(value) for value in (script, images, MAX_PIXELS, workers, known)]
    with subprocess.Popen([sys.executable, *arguments]) as process:
        while not read_journal(journal):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not known.exists()
    with journal.open("ab") as stream:  # what it was writing when it was killed
        stream.write(journal.read_bytes()[: journal.stat().st_size // 2 - 7])
    table, said = again(images, known, caplog)
    counts = re.findall(r"(\d+) files are unchanged, (\d+) are new", said)
    unchanged, changed = map(int, counts[0])
    assert unchanged > 0
    assert 0 < changed == 4 * 1797 - unchanged
    assert table.equals(described(images))
    assert not journal.exists()
    _, said = again(images, known, caplog)
    assert f"{4 * 1797} files are unchanged, 0 are new or changed" in said


def test_an_ingest_that_is_interrupted_keeps_all_it_had_finished(
    images, known, caplog, monkeypatch
):
    def interrupted(work, jobs, *_):
        yield work(next(iter(jobs)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("tasks.data.ingest.in_order", interrupted)
        with pytest.raises(KeyboardInterrupt):
            described(images, known)
    table, said = again(images, known, caplog)
    assert "64 files are unchanged, 136 are new or changed" in said
    assert table.equals(described(images))


def test_a_journal_is_read_up_to_the_first_damage_and_written_on_from_there(tmp_path):
    file = tmp_path / "some.journal"
    tables = [pa.table({"n": list(range(n))}) for n in (3, 5, 7)]
    with Journal(file) as journal:
        for table in tables:
            journal.append(table)
    whole = file.read_bytes()
    for end in range(0, len(whole), 50):
        file.write_bytes(whole[:end])
        assert read_journal(file) == tables[: len(read_journal(file))]
    damaged = bytearray(whole)
    damaged[-30] ^= 1
    file.write_bytes(damaged)
    assert read_journal(file) == tables[:2]
    with Journal(file) as journal:
        journal.append(tables[0])
    assert read_journal(file) == [*tables[:2], tables[0]]
    assert read_journal(tmp_path / "none") == []


def test_rows_of_no_use_are_removed_when_there_are_many(images, known, caplog):
    described(images, known)
    files = sorted(images.glob("*/*.png"))
    size = known.stat().st_size
    for grey in range(4):
        for number, file in enumerate(files[:30]):
            save(file, 10 * grey + number)
        time.sleep(2.1)
        table, said = again(images, known, caplog)
        assert "170 files are unchanged, 30 are new or changed" in said
        assert table.equals(described(images))
    assert known.stat().st_size + journal_size(known) < 1.5 * size


def journal_size(known: Path) -> int:
    journal = known.with_suffix(".journal")
    return journal.stat().st_size if journal.exists() else 0
