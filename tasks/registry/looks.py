"""How often the same test images were used for a decision: <home>/looks.jsonl, a line each.

Every decision learns a little of the test images, so that the more were made on them, the less
the next one proves (Dwork et al. 2015, "The reusable holdout"). The same question asked again,
by a retry or after a crash, is no new look: the answer is known already. A test split that has
grown is still the same while most of its images are: <home>/test_sets/<digest>.npy holds each.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.bundle import Bundle
from tasks.errors import DataError
from tasks.evaluation.two_bundles import identity, stored_answers
from tasks.files import append_line, atomic_write, sha256_json
from tasks.locks import held
from tasks.params import Settings
from tasks.registry.decision import Looks
from tasks.registry.gate import FrozenImages
from tasks.schema import Budget, Gate

Hashes = npt.NDArray[np.bytes_]
_MOST = 0.5  # of the images: a set that shares as many is the same one, grown
_LOCK_SECONDS = 60.0
_WHAT = "another process is counting a decision"


def count_look(
    challenger: Bundle,
    champion: Bundle | None,
    test: FrozenImages,
    gate: Gate,
    budget: Budget,
    settings: Settings,
) -> Looks:
    """Write down that a decision is made on these images, before it is; gives which one it is."""
    digest = identity(test.hashes, test.names)
    compared = {
        "challenger": challenger.digest,
        "champion": champion.digest if champion else None,
    }
    question = sha256_json([digest, compared, gate.model_dump(), budget.model_dump()])
    with held(settings.home / "looks.lock", _LOCK_SECONDS, _WHAT):
        asked = _questions(digest, test.hashes, settings)
        if question not in asked:
            asked.append(question)
            _keep_set(digest, test.hashes, settings)
            time = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"test_set": digest, "question": question, "time": time}
            append_line(_ledger(settings), json.dumps(entry | compared))
    return Looks(digest, len(test.hashes), len(asked), counted=True)


def past_looks(bundle: Bundle, test: FrozenImages | None, settings: Settings) -> Looks | None:
    """The decisions so far on these images, or on the bundle's own; None where it names none."""
    if test is not None:
        hashes, names = test.hashes, test.names
    else:
        try:
            answers = stored_answers(bundle)
        except DataError:
            return None
        if answers.hashes is None:
            return None
        hashes, names = answers.hashes, answers.names
    digest = identity(hashes, names)
    asked = _questions(digest, hashes, settings)
    return Looks(digest, len(hashes), len(asked), counted=False)


def _questions(digest: str, hashes: Hashes, settings: Settings) -> list[str]:
    """The different questions asked of these images, or of most of them, oldest first."""
    same = {digest: True}
    found: dict[str, None] = {}
    for entry in _entries(_ledger(settings)):
        test_set = entry["test_set"]
        if test_set not in same:
            same[test_set] = _shares_most(_set_file(test_set, settings), hashes)
        if same[test_set]:
            found[entry["question"]] = None
    return list(found)


def _entries(ledger: Path) -> Iterator[dict[str, str]]:
    """The lines of the ledger; one torn by a crash is left out."""
    try:
        lines = ledger.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            entry: Any = json.loads(line)
            yield {name: str(entry[name]) for name in ("test_set", "question")}
        except (ValueError, TypeError, KeyError):
            continue


def _shares_most(file: Path, hashes: Hashes) -> bool:
    try:
        known = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # gone: only the very same set is known as such
        return False
    return bool(np.isin(hashes, known).mean() >= _MOST)


def _keep_set(digest: str, hashes: Hashes, settings: Settings) -> None:
    if not (file := _set_file(digest, settings)).exists():
        with atomic_write(file) as stream:
            np.save(stream, hashes, allow_pickle=False)


def _set_file(digest: str, settings: Settings) -> Path:
    return settings.home / "test_sets" / f"{digest[:16]}.npy"


def _ledger(settings: Settings) -> Path:
    return settings.home / "looks.jsonl"
