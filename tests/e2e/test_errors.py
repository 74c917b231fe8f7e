"""What a user gets wrong: one clear line, an exit code, and nothing half-written."""

import io
import socket
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def write_images(folder: Path, count: int, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(count):
        pixels = generator.integers(0, 256, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def huge_png() -> bytes:
    """The header of a 30,000×30,000 PNG with next to no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def fails(clone: Any, *command: str, code: int | None = None) -> str:
    done = clone.run(*command)
    assert done.returncode != 0, done.stdout
    assert code is None or done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return str(done.stderr + done.stdout)


def test_folders_that_cannot_be_learnt_from(clone: Any, tmp_path: Path) -> None:
    assert "does not exist" in fails(clone, "visionloop", "init", "--data", str(tmp_path / "no"))
    (tmp_path / "empty").mkdir()
    assert "empty" in fails(clone, "visionloop", "init", "--data", str(tmp_path / "empty"))
    write_images(tmp_path / "one" / "cat", 30)
    assert "cat" in fails(clone, "visionloop", "init", "--data", str(tmp_path / "one"))
    write_images(tmp_path / "few" / "cat", 30)
    write_images(tmp_path / "few" / "dog", 2, seed=1)
    assert "dog" in fails(clone, "visionloop", "init", "--data", str(tmp_path / "few"))


def test_a_class_with_two_images_stops_the_run_at_validation(
    another_clone: Any, tmp_path: Path
) -> None:
    write_images(tmp_path / "few" / "cat", 30)
    write_images(tmp_path / "few" / "dog", 2, seed=1)
    said = fails(
        another_clone, "visionloop", "run",
        "--set", f"ingest.sources.digits.path={tmp_path / 'few'}", "--set", "validate.labels=null",
        code=3,
    )  # fmt: skip
    assert "dog" in said
    assert "min_per_class" in said or "images" in said


def test_broken_files_are_rows_with_a_reason(another_clone: Any, tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "broken"
    write_images(folder / "cat", 25)
    write_images(folder / "dog", 25, seed=1)
    (folder / "cat" / "zero.png").write_bytes(b"")
    (folder / "cat" / "text.jpg").write_text("not an image")
    (folder / "dog" / "huge.png").write_bytes(huge_png())
    stream = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(stream, "JPEG")
    (folder / "dog" / "cut.jpg").write_bytes(stream.getvalue()[:200])
    values = {"ingest.sources.digits.path": str(folder), "validate.labels": None}
    _set(another_clone, values)
    another_clone.check("dvc", "repro", "clean")
    rows = pd.read_parquet(another_clone.root / "data" / "cleaned.parquet").set_index("path")
    for file in ("cat/zero.png", "cat/text.jpg", "dog/huge.png", "dog/cut.jpg"):
        name = f"digits/{file}"
        assert rows.loc[name, "error"]
        assert not rows.loc[name, "keep"]
    assert len(rows) == 54


def test_a_misspelt_key_in_the_file_stops_everything(another_clone: Any) -> None:
    path = another_clone.root / "conf" / "params.yaml"
    text = path.read_text(encoding="utf-8").replace("batch_size:", "batchsize:")
    path.write_text(text, encoding="utf-8")
    for command in (("visionloop", "run"), ("visionloop", "up")):
        assert "did you mean 'train.batch_size'" in fails(another_clone, *command, code=2)
    assert not (another_clone.root / "dvc.lock").exists()


def test_a_tracker_that_is_away_costs_no_training(clone: Any, first_run: dict[str, Any]) -> None:
    """Everything up to the bundle is there; registering says what to do, and works later."""
    away = type(clone)(clone.root, {**clone.env, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"})
    override = ("--set", "evaluate.resamples=450")
    said = fails(away, "visionloop", "run", *override)
    assert "MLflow does not answer at http://127.0.0.1:9" in said
    again = clone.json("visionloop", "run", "--json", *override)
    assert again["changed"] == []
    assert again["registry"]["version"] > 1


def test_a_port_in_use_is_named(clone: Any, first_run: dict[str, Any]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = fails(clone, "visionloop", "serve", "--port", port)
    assert port in said
    assert "VISIONLOOP_PORT" in said


def test_flows_without_their_server_say_how_to_start_it(
    clone: Any, first_run: dict[str, Any]
) -> None:
    env = {**clone.env, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = type(clone)(clone.root, env).run("visionloop", "doctor")
    assert "visionloop up" in done.stdout


def _set(clone: Any, values: dict[str, object]) -> None:
    from ruamel.yaml import YAML

    from tasks.params import apply_overrides, read_yaml

    path = clone.root / "conf" / "params.yaml"
    changed = apply_overrides(read_yaml(path), values)
    with open(path, "w", encoding="utf-8") as stream:
        YAML().dump(changed, stream)
