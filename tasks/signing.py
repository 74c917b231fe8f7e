"""Ed25519 signatures over a directory: SHA256SUMS (the format of `sha256sum`) and its signature.

Anyone can check a signed directory without Visionloop: `sha256sum -c SHA256SUMS`. What is said of
the directory later is a document beside it, signed by itself: one file, so that it is whole or
not there, and naming the directory's digest, so that it cannot be moved to another.
"""

import base64
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tasks.errors import BundleError
from tasks.files import atomic_write, sha256, write_text
from tasks.params import Settings

SUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.sig"
GATE = "gate.json"  # the one document that may come later: the gate's decision


def sign_directory(directory: Path, settings: Settings) -> str:
    """Write SHA256SUMS and its signature into `directory`; returns the SHA-256 of SHA256SUMS."""
    lines = [f"{sha256(path)}  {path.name}" for path in _signed_files(directory)]
    text = "\n".join(lines) + "\n"
    write_text(directory / SUMS, text)
    with atomic_write(directory / SIGNATURE) as stream:
        stream.write(_private_key(settings).sign(text.encode()))
    return sha256(directory / SUMS)


def verify_directory(directory: Path, settings: Settings) -> str:
    """Check signature, checksums and that no file was added; returns the SHA-256 of SHA256SUMS.

    Raises BundleError naming the first file that is missing, altered or unknown; a document of
    another signer, or about another directory, is one.
    """
    sums = _read(directory / SUMS)
    try:
        _public_key(settings).verify(_read(directory / SIGNATURE), sums)
    except InvalidSignature:
        raise BundleError(
            f"{directory}: the signature does not match the trusted key; the bundle was altered, "
            "or signed elsewhere (set VISIONLOOP_TRUSTED_KEY to its signer's public key)"
        ) from None
    lines = [line.split("  ", 1) for line in sums.decode().splitlines()]
    expected = {name: digest for digest, name in lines}
    for path in _signed_files(directory):
        if expected.pop(path.name, None) != sha256(path):
            raise BundleError(f"{path} does not match {SUMS}: it was altered or added")
    if expected:
        raise BundleError(f"{directory} lacks {', '.join(sorted(expected))}, listed in {SUMS}")
    digest = sha256(directory / SUMS)
    if (directory / GATE).exists():
        read_document(directory / GATE, digest, settings)
    return digest


def signed_document(content: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """A document about the directory of digest `content["bundle"]`, with its signature.

    Raises BundleError when this machine's key is not the one that is trusted: nobody would
    believe the document.
    """
    public = _public_key(settings)  # first, so that no key is made where another one is trusted
    path = settings.signing_key or settings.home / "keys" / "signing.pem"
    if settings.trusted_key is not None and not path.exists():
        raise BundleError(f"there is no key {path} to sign with; set VISIONLOOP_SIGNING_KEY")
    key = _private_key(settings)
    if key.public_key() != public:
        raise BundleError(
            f"{path} is not the key that {settings.trusted_key} trusts; set "
            "VISIONLOOP_SIGNING_KEY to the signer's own"
        )
    signature = base64.b64encode(key.sign(_canonical(content))).decode("ascii")
    return {"content": dict(content), "signature": signature}


def read_document(path: Path, digest: str, settings: Settings) -> dict[str, Any]:
    """The content of a document about the directory of this digest; raises BundleError."""
    text = _read(path)
    try:
        document = json.loads(text)
        content: dict[str, Any] = dict(document["content"])
        signature = base64.b64decode(document["signature"], validate=True)
        _public_key(settings).verify(signature, _canonical(content))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BundleError(f"{path} is damaged: it is no signed document") from None
    except InvalidSignature:
        raise BundleError(
            f"{path} was altered: its signature does not match the trusted key"
        ) from None
    if content.get("bundle") != digest:
        raise BundleError(f"{path} is about another bundle than the one it lies in")
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    """What is signed: JSON with sorted keys and no spaces, as Python writes it."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _signed_files(directory: Path) -> list[Path]:
    entries = sorted(directory.iterdir())
    for path in entries:
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is not a plain file; a bundle holds plain files only")
    return [path for path in entries if path.name not in (SUMS, SIGNATURE, GATE)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); is this a bundle?") from None


def _private_key(settings: Settings) -> Ed25519PrivateKey:
    path = settings.signing_key or settings.home / "keys" / "signing.pem"
    if settings.signing_key is None and not path.exists():
        _create_key(path)
    key = _load(path, private=True)
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path} is not an Ed25519 private key")
    return key


def _public_key(settings: Settings) -> Ed25519PublicKey:
    if settings.trusted_key is None:
        return _private_key(settings).public_key()
    key = _load(settings.trusted_key, private=False)
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{settings.trusted_key} is not an Ed25519 public key")
    return key


def _load(path: Path, private: bool) -> object:
    try:
        data = path.read_bytes()
        if private:
            return serialization.load_pem_private_key(data, password=None)
        return serialization.load_pem_public_key(data)
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"key {path} cannot be read: {error}") from None


def _create_key(path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=path.parent) as stream:  # readable by the owner only
        stream.write(pem)
        stream.flush()
        os.fsync(stream.fileno())
        try:
            # Of processes that start together one wins, and the others find its key whole.
            os.link(stream.name, path)
        except FileExistsError:
            return
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with atomic_write(path.with_suffix(".pub.pem")) as stream:
        stream.write(public)
