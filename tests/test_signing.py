"""A signed directory: any change is noticed and named, and others can check it without us."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.errors import BundleError
from tasks.params import Settings
from tasks.signing import (
    GATE,
    SIGNATURE,
    SUMS,
    read_document,
    sign_directory,
    signed_document,
    verify_directory,
)


@pytest.fixture
def signed(tmp_path: Path, settings: Settings) -> Path:
    directory = tmp_path / "signed"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(b"\x00\x01 weights")
    (directory / "bundle.json").write_text("{}")
    sign_directory(directory, settings)
    return directory


def test_an_untouched_directory_verifies(signed, settings):
    assert verify_directory(signed, settings) == sign_directory(signed, settings)


def test_signing_again_gives_the_same_bytes(signed, settings):
    before = {path.name: path.read_bytes() for path in signed.iterdir()}
    sign_directory(signed, settings)
    assert {path.name: path.read_bytes() for path in signed.iterdir()} == before


def test_sha256sum_can_check_it(signed):
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=signed, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["bundle.json: OK", "model.onnx: OK"]


def test_openssl_can_check_the_signature(signed, settings):
    public = settings.home / "keys" / "signing.pub.pem"
    done = subprocess.run(
        ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", SUMS,
         "-sigfile", SIGNATURE],
        cwd=signed, capture_output=True, text=True,
    )  # fmt: skip
    assert "Signature Verified Successfully" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda d: (d / "model.onnx").write_bytes(b"\x00\x02 weights"),
            r"model\.onnx does not match",
        ),
        (lambda d: (d / "extra.py").write_text("import os"), r"extra\.py does not match"),
        (lambda d: (d / "model.onnx").unlink(), r"lacks model\.onnx"),
        (lambda d: (d / "model.onnx").rename(d / "other.onnx"), r"other\.onnx does not match"),
        (lambda d: (d / "folder").mkdir(), r"folder is not a plain file"),
        (lambda d: (d / SUMS).unlink(), r"SHA256SUMS cannot be read"),
        (lambda d: (d / SIGNATURE).unlink(), r"SHA256SUMS\.sig cannot be read"),
        (lambda d: (d / SIGNATURE).write_bytes(b"0" * 64), "signature does not match"),
        (lambda d: (d / SIGNATURE).write_bytes(b""), "signature does not match"),
        (
            lambda d: (d / SUMS).write_text((d / SUMS).read_text() + "\n"),
            "signature does not match",
        ),
    ],
)
def test_every_change_is_noticed_and_named(signed, settings, change, said):
    change(signed)
    with pytest.raises(BundleError, match=said):
        verify_directory(signed, settings)


def test_a_link_in_place_of_a_file_is_refused(signed, settings, tmp_path):
    (signed / "model.onnx").rename(tmp_path / "elsewhere")
    (signed / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="plain files only"):
        verify_directory(signed, settings)


def test_another_signers_directory_is_refused(signed, tmp_path):
    other = Settings(home=tmp_path / "other")
    with pytest.raises(BundleError, match="VISIONLOOP_TRUSTED_KEY"):
        verify_directory(signed, other)


def test_a_trusted_public_key_is_enough_to_verify(signed, settings, tmp_path):
    public = settings.home / "keys" / "signing.pub.pem"
    server = Settings(home=tmp_path / "server", trusted_key=public)
    assert verify_directory(signed, server) == verify_directory(signed, settings)
    assert not (tmp_path / "server").exists()


def test_the_private_key_is_the_owners_alone(signed, settings):
    key = settings.home / "keys" / "signing.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in key.parent.iterdir()) == ["signing.pem", "signing.pub.pem"]


def test_a_key_of_ones_own_is_used_and_a_missing_one_is_named(signed, tmp_path):
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (tmp_path / "mine.pem").write_bytes(pem)
    own = Settings(home=tmp_path / "home2", signing_key=tmp_path / "mine.pem")
    assert sign_directory(signed, own) == verify_directory(signed, own)
    missing = Settings(home=tmp_path / "home2", signing_key=tmp_path / "nowhere.pem")
    with pytest.raises(BundleError, match=r"nowhere\.pem cannot be read"):
        sign_directory(signed, missing)


def test_a_key_of_another_kind_is_named(signed, tmp_path):
    key = generate_private_key(SECP256R1())
    (tmp_path / "ec.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (tmp_path / "text.pem").write_text("not a key")
    with pytest.raises(BundleError, match=r"ec\.pem is not an Ed25519 private key"):
        sign_directory(signed, Settings(home=tmp_path, signing_key=tmp_path / "ec.pem"))
    with pytest.raises(BundleError, match=r"text\.pem cannot be read"):
        sign_directory(signed, Settings(home=tmp_path, signing_key=tmp_path / "text.pem"))


SIGN = """
import sys
from pathlib import Path
from tasks.params import Settings
from tasks.signing import sign_directory
settings = Settings(home=Path(sys.argv[1]))
sys.stdin.readline()
sign_directory(Path(sys.argv[2]), settings)
"""


def test_processes_that_start_together_share_one_key(tmp_path):
    directories = [tmp_path / f"d{i}" for i in range(4)]
    for directory in directories:
        directory.mkdir()
        (directory / "a").write_text("a")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SIGN, str(tmp_path / "home"), str(directory)],
            stdin=subprocess.PIPE,
            text=True,
        )
        for directory in directories
    ]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.wait() for process in processes] == [0] * 4
    assert len({verify_directory(d, Settings(home=tmp_path / "home")) for d in directories}) == 1


# A document that came later: gate.json.


def attach(directory, settings, **changes):
    content = {"bundle": verify_directory(directory, settings), "outcome": "promote"} | changes
    (directory / GATE).write_text(json.dumps(signed_document(content, settings)))
    return content


def test_a_document_leaves_the_directory_what_it_was(signed, settings):
    digest = verify_directory(signed, settings)
    content = attach(signed, settings)
    assert verify_directory(signed, settings) == digest
    assert read_document(signed / GATE, digest, settings) == content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("promote", "block"), r"gate\.json was altered"),
        (lambda text: text.replace('"signature": "', '"signature": "AAAA'), r"gate\.json was alt"),
        (lambda text: text[: len(text) // 2], r"gate\.json is damaged"),
        (lambda text: "", r"gate\.json is damaged"),
        (lambda text: "[]", r"gate\.json is damaged"),
        (lambda text: "[" * 100_000, r"gate\.json is damaged"),
        (lambda text: '{"content": {}, "signature": "é"}', r"gate\.json is damaged"),
    ],
)
def test_a_document_that_was_changed_is_named(signed, settings, change, said):
    attach(signed, settings)
    path = signed / GATE
    path.write_text(change(path.read_text()))
    with pytest.raises(BundleError, match=said):
        verify_directory(signed, settings)


def test_a_document_about_another_directory_is_refused(signed, settings):
    attach(signed, settings, bundle="0" * 64)
    with pytest.raises(BundleError, match="about another bundle"):
        verify_directory(signed, settings)


def test_who_is_not_trusted_signs_no_document_and_makes_no_key(signed, settings, tmp_path):
    public = settings.home / "keys" / "signing.pub.pem"
    server = Settings(home=tmp_path / "server", trusted_key=public)
    with pytest.raises(BundleError, match=r"no key .*VISIONLOOP_SIGNING_KEY"):
        signed_document({"bundle": ""}, server)
    assert not (tmp_path / "server").exists()
    sign_directory(signed, Settings(home=tmp_path / "other"))  # makes a key of its own
    other = Settings(home=tmp_path / "other", trusted_key=public)
    with pytest.raises(BundleError, match=r"not the key that .*signing\.pub\.pem trusts"):
        signed_document({"bundle": ""}, other)
