"""A small real repository: git, a DVC graph with tables and a folder, a remote beside it."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from dvc.repo import Repo

from tasks.data.clean import clean
from tasks.data.digits import write_digits
from tasks.data.ingest import ingest
from tasks.data.sources.folders import find_files
from tasks.data.split import assign
from tasks.params import load_params

ROOT = Path(__file__).parents[2]
GRAPH = """
stages:
  clean:
    cmd: cp given/cleaned.parquet data/cleaned.parquet
    deps: [given/cleaned.parquet]
    outs: [data/cleaned.parquet]
  split:
    cmd: cp given/splits.parquet data/splits.parquet
    deps: [given/splits.parquet, data/cleaned.parquet]
    outs: [data/splits.parquet]
  count:
    cmd:
      - mkdir -p data/counts
      - wc -c data/*.parquet > data/counts/bytes
      - date +%N > data/counts/now
    deps: [data/splits.parquet]
    outs: [data/counts]
"""


@dataclass(frozen=True)
class Project:
    """The repository's folder, and what a user does in it."""

    root: Path

    def repro(self) -> None:
        with Repo(str(self.root)) as repository:
            repository.reproduce()

    def push(self) -> None:
        with Repo(str(self.root)) as repository:
            repository.push()

    def commit(self, tag: str) -> None:
        for words in (("add", "-A"), ("commit", "-q", "-m", tag), ("tag", tag)):
            git(self.root, *words)

    def stored(self, path: str) -> Path:
        """The cache object of a file as it is now, or of the list of files of a folder."""
        file = self.root / path
        if file.is_file():
            digest = hashlib.md5(file.read_bytes()).hexdigest()
        else:
            (digest,) = re.findall(rf"path: {path}\n.*\n +md5: (.*)", self.lock.read_text())
        return self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]

    @property
    def lock(self) -> Path:
        return self.root / "dvc.lock"


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.com"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True)


def damage(file: Path) -> None:
    """Flip a bit as a failing disk would: neither mode nor time of the file changes."""
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.write(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    file.chmod(status.st_mode)


@pytest.fixture(scope="session", name="damage")
def damage_fixture() -> Callable[[Path], None]:
    return damage


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cleaned manifest and the splits of the digits."""
    folder = tmp_path_factory.mktemp("tables") / "digits"
    write_digits(folder)
    params = load_params(ROOT / "conf/params.yaml")
    found = find_files(folder)
    manifest = ingest("digits", found, params.ingest.max_pixels).to_pandas()
    cleaned, pairs = clean(manifest, params.clean)
    return cleaned, assign(cleaned, pairs, params.split)


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> Path:
    """A project and its remote beside it: run, pushed and committed as v1."""
    root = tmp_path_factory.mktemp("finished") / "project"
    for folder in (".dvc", "data", "given"):
        (root / folder).mkdir(parents=True)
    config = (ROOT / ".dvc/config").read_text().replace("../.visionloop/remote", "../../remote")
    (root / ".dvc/config").write_text(config)
    (root / ".gitignore").write_text("/given\n")
    shutil.copy(ROOT / "data/.gitignore", root / "data/.gitignore")
    (root / "dvc.yaml").write_text(GRAPH)
    shutil.copytree(ROOT / "conf", root / "conf")
    for name, table in zip(("cleaned", "splits"), tables, strict=True):
        table.to_parquet(root / f"given/{name}.parquet")
    git(root, "init", "-q")
    made, here = Project(root), Path.cwd()
    os.chdir(root)  # DVC looks for the graph in the current directory
    try:
        made.repro()
        made.push()
    finally:
        os.chdir(here)
    made.commit("v1")
    return root.parent


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the finished project, its files linked to its cache; the current directory."""
    subprocess.run(["cp", "-a", f"{finished}/.", str(tmp_path)], check=True)
    root = tmp_path / "project"
    monkeypatch.chdir(root)
    with Repo(str(root)) as repository:
        assert repository.status() == {}  # and now DVC knows the files by size, time and inode
    return Project(root)
