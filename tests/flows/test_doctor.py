"""`visionloop doctor`: each thing that can be wrong is found, and how to mend it is said."""

import json
import os
import shutil
import socket
import subprocess
import sys

import onnxruntime
import pytest

from tasks.params import load_settings
from tasks.releases import publish


@pytest.fixture
def settings(repository):
    """Those of the repository, so that the bundles are signed with its key."""
    return load_settings()


@pytest.fixture
def doctor(repository, visionloop):
    """Runs the doctor; gives the exit code and the checks by name."""

    def run():
        result = visionloop("doctor", "--json")
        report = json.loads(result.output)
        assert report["ok"] is (result.exit_code == 0)
        return result.exit_code, {check["name"]: check for check in report["checks"]}

    return run


def test_a_fresh_clone_is_healthy(doctor):
    code, checks = doctor()
    assert code == 0
    assert {name for name, check in checks.items() if check["status"] == "fail"} == set()
    assert checks["libraries"]["status"] == "ok"
    assert checks["git"]["found"] == "clean"
    assert "the first run writes it" in checks["data"]["found"]


def test_every_finding_that_is_not_ok_says_how_to_mend_it(doctor, repository):
    (repository / "conf" / "params.yaml").write_text("ingest: 3\n")
    shutil.rmtree(repository / ".dvc")
    (repository / "requirements.lock").write_text("torch==0.1\n")
    code, checks = doctor()
    assert code == 1
    assert all(check["mend"] for check in checks.values() if check["status"] != "ok")
    assert {name for name, check in checks.items() if check["status"] == "fail"} == {
        "params",
        "dvc",
        "libraries",
    }


def test_runtimes_are_listed_and_one_that_production_lacks_is_told(
    doctor, make_bundle, settings, monkeypatch
):
    _, checks = doctor()
    assert checks["runtimes"]["status"] == "ok"
    assert "ONNX Runtime 1." in checks["runtimes"]["found"]
    assert "OpenVINO 20" in checks["runtimes"]["found"]
    publish(make_bundle(runtime="openvino"), 1, settings)
    assert doctor()[1]["runtimes"]["status"] == "ok"
    publish(make_bundle(name="fast", runtime="cuda"), 2, settings)
    checks = doctor()[1]
    assert "was measured on ONNX Runtime on CUDA" in checks["runtimes"]["found"]
    assert "onnxruntime-gpu[cuda,cudnn]==1." in checks["runtimes"]["mend"]
    publish(make_bundle(name="again", runtime="openvino"), 3, settings)
    monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    code, checks = doctor()
    assert (code, checks["runtimes"]["status"]) == (0, "warn")
    assert "the model in production was measured on OpenVINO" in checks["runtimes"]["found"]
    assert "visionloop[openvino]" in checks["runtimes"]["mend"]


def test_a_gpu_that_onnx_runtime_was_built_for_and_does_not_find(doctor, monkeypatch):
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    code, checks = doctor()
    assert (code, checks["runtimes"]["status"]) == (0, "warn")
    assert "CUDAExecutionProvider is installed and does not run here" in checks["runtimes"]["found"]
    assert "ONNX Runtime on CUDA" not in checks["runtimes"]["found"]
    assert "make setup" in checks["runtimes"]["mend"]


def test_a_misspelt_parameter(doctor, repository):
    path = repository / "conf" / "params.yaml"
    path.write_text(path.read_text().replace("momentum:", "momentun:"))
    code, checks = doctor()
    assert code == 1
    assert "did you mean 'train.momentum'?" in checks["params"]["found"]
    assert checks["git"]["status"] == "warn"


def test_images_that_are_not_there(doctor, repository):
    path = repository / "conf" / "params.yaml"
    path.write_text(path.read_text().replace("data/raw/digits", "data/raw/cats"))
    code, checks = doctor()
    assert code == 1
    assert checks["data"]["found"] == "data/raw/cats does not exist"


def test_a_library_of_another_version(doctor, repository):
    path = repository / "requirements.lock"
    path.write_text(path.read_text().replace("\nprefect==", "\nprefect==9"))
    code, checks = doctor()
    assert code == 1
    assert "is not the locked 9" in checks["libraries"]["found"]


def test_a_port_held_by_something_else_is_named_with_its_process(doctor):
    port = int(os.environ["VISIONLOOP_PORT"])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen()
        code, checks = doctor()
    found = checks[f"port {port}"]
    assert code == 1
    assert f"pid {os.getpid()}" in found["found"]
    assert f"VISIONLOOP_PORT={port + 1}" in found["mend"]


def test_a_signing_key_that_others_can_read(doctor, repository):
    key = repository / ".visionloop" / "keys" / "signing.pem"
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    key.chmod(0o644)
    code, checks = doctor()
    assert code == 1
    assert checks["signing key"]["mend"] == f"chmod 600 {key}"
    key.chmod(0o600)
    assert doctor()[1]["signing key"]["status"] == "ok"


def test_the_default_remote_is_shown_and_missed(doctor, repository):
    assert doctor()[1]["dvc"]["found"] == "remote local: ../.visionloop/remote"
    (repository / ".dvc" / "config").write_text("[core]\n    analytics = false\n")
    assert doctor()[1]["dvc"]["status"] == "warn"


def test_without_git_history(doctor, repository):
    shutil.rmtree(repository / ".git")
    assert subprocess.run(["git", "status"], capture_output=True, cwd=repository).returncode != 0
    assert doctor()[1]["git"]["status"] == "warn"


def test_the_table_for_a_person(repository, visionloop):
    result = visionloop("doctor")
    assert result.exit_code == 0
    assert "nothing is broken" in result.output
    assert "[" not in result.output.replace("[INFO]", "")
