"""The data half of `dvc repro`, killed and resumed; and its results taken to another clone."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from ruamel.yaml import YAML

from tasks.data.shards import open_shards
from tasks.data.sources.detect import detect
from tasks.data.sources.locate import find, local_folder
from tasks.errors import DataError
from tasks.params import load_params
from tasks.ports import free_port

REPOSITORY = Path(__file__).parents[2]
# Seconds after the start of a stage: on a fast machine in its work, on a slow one in its imports.
KILLED = {
    "digits": 1.0, "ingest@digits": 0.6, "review": 0.3, "clean": 0.5, "validate": 1.5, "split": 0.3,
    "validate_splits": 1.5, "prepare": 0.6,
}  # fmt: skip
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder: Path, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).parent / command[0])
    arguments = [program if Path(program).exists() else command[0], *command[1:]]
    done = subprocess.run(
        arguments, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done


def environment(folder: Path) -> dict[str, str]:
    author = {
        f"GIT_{role}_{key}": "x@y.z"
        for role in ("AUTHOR", "COMMITTER")
        for key in ("NAME", "EMAIL")
    }
    return os.environ | author | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


_FILES = (
    "dvc.yaml", ".gitignore", "data/.gitignore", "data/review.csv",
    ".dvc/config", ".dvc/.gitignore", ".dvcignore",
)  # fmt: skip


def copy_of_repository(folder: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("conf", "tasks"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for name in _FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / name)
    link_environment(folder)
    run(folder, "git", "init", "--quiet", ".")
    return folder


def link_environment(folder: Path) -> None:
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    (folder / ".git/info").mkdir(parents=True, exist_ok=True)


def locked_outs(folder: Path) -> dict[str, str]:
    """The hash of every output but the validations, whose pages carry the time of the run."""
    lock: Any = YAML(typ="safe").load(folder / "dvc.lock")
    outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
    return {out["path"]: out["md5"] for out in outs if "data/validation" not in out["path"]}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which the data steps ran unbroken, committed and pushed to the local remote."""
    folder = copy_of_repository(tmp_path_factory.mktemp("first") / "clone")
    run(folder, "dvc", "repro", "prepare")
    run(folder, "git", "add", "--all", ".")
    run(folder, "git", "commit", "--quiet", "--message", "data")
    run(folder, "dvc", "push")
    return folder


@pytest.fixture
def second(first: Path, tmp_path: Path) -> Path:
    """A second clone that shares the remote and nothing else."""
    run(tmp_path, "git", "clone", "--quiet", str(first), "clone")
    folder = tmp_path / "clone"
    link_environment(folder)
    shutil.copytree(first / ".visionloop/remote", tmp_path / "remote")
    run(folder, "dvc", "remote", "modify", "--local", "local", "url", str(tmp_path / "remote"))
    return folder


def stored(store: Path, digest: str) -> Path:
    return store / "files/md5" / digest[:2] / digest[2:]


def damage(file: Path) -> None:
    """Flip a bit as a failing disk would: neither mode nor time of the file changes."""
    status = file.stat()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    file.chmod(status.st_mode)


def test_a_second_clone_pulls_the_same_bytes_and_has_nothing_to_do(
    first: Path, second: Path
) -> None:
    run(second, "dvc", "pull", "--with-deps", "prepare")
    assert open_shards(second / "data/shards").digest == open_shards(first / "data/shards").digest
    for file in (first / "data/raw").rglob("*.png"):
        assert (second / file.relative_to(first)).read_bytes() == file.read_bytes()
    assert "up to date" in run(second, "dvc", "status", "prepare").stdout
    assert "Running stage" not in run(second, "dvc", "repro", "prepare").stdout


def test_a_damaged_object_in_the_remote_is_refused(second: Path, tmp_path: Path) -> None:
    damage(stored(tmp_path / "remote", locked_outs(second)["data/splits.parquet"]))
    pulled = run(second, "dvc", "pull", "split", check=False)
    assert pulled.returncode != 0
    assert not (second / "data/splits.parquet").exists()


def test_a_damaged_object_in_the_cache_is_noticed_before_training(
    second: Path, tmp_path: Path
) -> None:
    """`dvc checkout` restores it and exits 0; opening the shards does not."""
    run(second, "dvc", "pull", "prepare")
    index = YAML(typ="safe").load(stored(tmp_path / "remote", locked_outs(second)["data/shards"]))
    images = next(entry["md5"] for entry in index if entry["relpath"] == "train_images.npy")
    shutil.rmtree(second / "data/shards")
    damage(stored(second / ".dvc/cache", images))
    run(second, "dvc", "checkout", "prepare", check=False)
    with pytest.raises(DataError, match=r"train_images\.npy"):
        open_shards(second / "data/shards")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """A bucket of an S3 server, a process of its own: what DVC's configuration needs for it."""
    port, log = free_port(), tmp_path_factory.mktemp("s3") / "log"
    program = Path(sys.executable).parent / "moto_server"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [program, "-H", "127.0.0.1", "-p", str(port)], stdout=stream, stderr=stream
        )
    try:
        wait_for(f"Running on http://127.0.0.1:{port}", log, server)
        endpoint = f"http://127.0.0.1:{port}"
        httpx.put(f"{endpoint}/data", trust_env=False).raise_for_status()
        keys = {"access_key_id": "someone", "secret_access_key": "secret"}
        yield {"url": "s3://data/digits", "endpointurl": endpoint, **keys}
    finally:
        server.terminate()
        server.wait(30)


def test_images_in_a_bucket_are_a_source(
    bucket: Mapping[str, str], first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", bucket["access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", bucket["secret_access_key"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket["endpointurl"])
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    store = fsspec.filesystem("s3")
    for label in ("3", "8"):
        store.put(str(first / "data/raw/digits" / label), f"data/photos/{label}", recursive=True)
    limits = load_params(REPOSITORY / "conf/params.yaml").ingest
    source = detect("s3://data/photos", limits, tmp_path)
    assert (source.layout, source.path) == ("folders", "s3://data/photos")
    folder = local_folder(source, limits, tmp_path)
    found = find(source, folder)
    assert {one.label for one in found} == {"3", "8"}
    whole = list((first / "data/raw/digits/3").glob("*.png"))
    assert sum(one.label == "3" for one in found) == len(whole)
    assert (folder / "3" / whole[0].name).read_bytes() == whole[0].read_bytes()
    store.rm(f"data/photos/3/{whole[0].name}")
    assert len(find(source, local_folder(source, limits, tmp_path))) == len(found) - 1


def use(folder: Path, remote: Mapping[str, str]) -> None:
    """As docs/data.md says."""
    run(folder, "dvc", "remote", "add", "--local", "--default", "shared", remote["url"])
    for name, value in remote.items():
        run(folder, "dvc", "remote", "modify", "--local", "shared", name, value)


def test_s3_takes_the_data_to_another_clone(
    first: Path, bucket: Mapping[str, str], tmp_path: Path
) -> None:
    run(tmp_path, "git", "clone", "--quiet", str(first), "sender")
    run(tmp_path, "git", "clone", "--quiet", str(first), "receiver")
    sender, receiver = tmp_path / "sender", tmp_path / "receiver"
    for folder in (sender, receiver):
        link_environment(folder)
        use(folder, bucket)
    shutil.copytree(first / ".dvc/cache", sender / ".dvc/cache")
    run(sender, "dvc", "push")

    run(receiver, "visionloop", "data", "pull")
    assert open_shards(receiver / "data/shards").digest == open_shards(first / "data/shards").digest
    for path, digest in locked_outs(receiver).items():
        if not digest.endswith(".dir"):
            assert hashlib.md5((receiver / path).read_bytes()).hexdigest() == digest
    assert "Running stage" not in run(receiver, "dvc", "repro", "prepare").stdout

    damage(stored(receiver / ".dvc/cache", locked_outs(receiver)["data/manifest/digits.parquet"]))
    looked = run(receiver, "visionloop", "data", "verify", check=False)
    assert looked.returncode == 1
    assert "data/manifest/digits.parquet" in looked.stdout
    run(receiver, "visionloop", "data", "verify", "--repair")
    assert run(receiver, "visionloop", "data", "verify").returncode == 0
    assert (receiver / "data/manifest/digits.parquet").read_bytes() == (
        first / "data/manifest/digits.parquet"
    ).read_bytes()


def test_the_data_steps_keep_few_files(first: Path) -> None:
    """DVC is slow by the file: all but the quickstart's own images are few, and packed."""
    lock: Any = YAML(typ="safe").load(first / "dvc.lock")
    outs = {out["path"]: out for stage in lock["stages"].values() for out in stage["outs"]}
    counts = {path: out.get("nfiles", 1) for path, out in outs.items()}
    assert counts.pop("data/raw/digits") == 1797
    assert sum(counts.values()) < 100


def wait_for(line: str, output: Path, process: subprocess.Popen[bytes]) -> None:
    while line not in output.read_text():
        assert process.poll() is None, output.read_text()
        time.sleep(0.05)


def test_killed_steps_rerun_to_the_same_result(first: Path, tmp_path: Path) -> None:
    folder = copy_of_repository(tmp_path / "clone")
    for stage, delay in KILLED.items():
        output = tmp_path / f"{stage}.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [Path(sys.executable).parent / "dvc", "repro", "prepare"],
                cwd=folder,
                env=environment(folder),
                stdout=stream,
                stderr=stream,
            )
            wait_for(f"Running stage '{stage}'", output, process)
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
    run(folder, "dvc", "repro", "prepare")
    assert locked_outs(folder) == locked_outs(first)
    assert open_shards(folder / "data/shards").digest == open_shards(first / "data/shards").digest
    assert not list((folder / "data").glob(".*.tmp"))
