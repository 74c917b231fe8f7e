"""Decisions on the same test images are counted: once each, whoever asks, whatever is killed."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tasks.bundle import Bundle
from tasks.params import Settings, load_params
from tasks.registry.decision import Looks
from tasks.registry.gate import FrozenImages, decide
from tasks.registry.looks import count_look, past_looks

PARAMS = load_params()

COUNT = """
import sys
import numpy as np
from pathlib import Path
from tasks.bundle import Bundle
from tasks.params import Settings, load_params
from tasks.registry.gate import FrozenImages
from tasks.registry.looks import count_look
params, settings = load_params(), Settings(home=Path(sys.argv[1]))
hashes = np.arange(497).astype("S32")
test = FrozenImages(("a",), np.zeros(497, int), hashes, None)
print("ready", flush=True)
sys.stdin.readline()
for n in range(int(sys.argv[3])):
    bundle = Bundle(Path(), None, f"{sys.argv[2]}{n}")
    print(count_look(bundle, None, test, params.gate, params.budget, settings).number, flush=True)
"""


def _test_set(first: int = 0, past: int = 497) -> FrozenImages:
    """Images by their numbers."""
    hashes = np.arange(first, past).astype("S32")
    return FrozenImages(("a",), np.zeros(len(hashes), int), hashes, lambda bundle: hashes)


def _count(
    bundle: Bundle, settings: Settings, test: FrozenImages | None = None, **gate: object
) -> Looks:
    changed = PARAMS.gate.model_copy(update=gate)
    return count_look(bundle, None, test or _test_set(), changed, PARAMS.budget, settings)


def _process(settings: Settings, name: str, times: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COUNT, str(settings.home), name, str(times)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_each_new_question_is_a_look_and_the_same_one_is_not(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    first, second = make_bundle(0.1, "a"), make_bundle(0.2, "b")
    found = _count(first, settings)
    assert found == Looks(found.test_set, 497, 1, counted=True)
    assert _count(first, settings).number == 1  # a retry
    assert _count(second, settings).number == 2
    assert _count(second, settings, margin=0.5).number == 3  # asked again more leniently
    assert past_looks(first, _test_set(), settings) == Looks(found.test_set, 497, 3, counted=False)


def test_a_test_split_that_grew_is_the_same_and_one_drawn_anew_is_not(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    bundle, other = make_bundle(0.1, "a"), make_bundle(0.2, "b")
    for number, past in enumerate((497, 600, 900), 1):
        assert _count(bundle, settings, _test_set(0, past)).number == number
    assert _count(other, settings, _test_set(800, 1500)).number == 1  # shares 100 of 700
    assert _count(other, settings, _test_set(0, 497)).number == 4
    shutil.rmtree(settings.home / "test_sets")
    assert past_looks(bundle, _test_set(0, 497), settings).number == 2  # the very same set


def test_two_processes_at_once_lose_no_look_and_share_no_number(settings: Settings) -> None:
    both = [_process(settings, name, 40) for name in "ab"]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    numbers = [int(line) for process in both for line in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 81))


def test_a_killed_process_holds_up_nobody_and_what_it_counted_stays(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    process = _process(settings, "a", 100_000)
    process.stdin.write("\n")
    process.stdin.flush()
    counted = [int(process.stdout.readline()) for _ in range(5)][-1]
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    assert _count(make_bundle(), settings).number > counted


def test_a_line_torn_by_a_crash_is_left_out_and_the_next_one_whole(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    first, second = make_bundle(0.1, "a"), make_bundle(0.2, "b")
    _count(first, settings)
    with (settings.home / "looks.jsonl").open("a") as stream:
        stream.write('{"test_set": "torn", "ques')
    assert _count(second, settings).number == 2
    *_, torn, last = (settings.home / "looks.jsonl").read_text().splitlines()
    assert not torn.endswith("}")
    assert json.loads(last)["challenger"] == second.digest


def test_past_the_limit_the_decision_warns_and_says_which_one_it_is(
    make_bundle: Callable[..., Bundle],
) -> None:
    bundle = make_bundle()
    gate = PARAMS.gate.model_copy(update={"max_looks": 7})
    for number, effect in ((7, "pass"), (8, "warn")):
        looks = Looks("t", 497, number, counted=True)
        decision = decide(bundle, None, None, gate, PARAMS.budget, looks)
        (rule,) = [rule for rule in decision.rules if rule.name == "looks"]
        assert (rule.effect, decision.outcome) == (effect, "promote")
        assert (
            f"decision {number} on these 497 test images or most of them, at most 7"
            in decision.reason
        )


def test_without_images_the_bundle_names_its_own(
    make_bundle: Callable[..., Bundle], settings: Settings
) -> None:
    bundle = make_bundle()
    found = past_looks(bundle, None, settings)
    assert (found.images, found.number) == (597, 0)
    reference = bundle.reference()
    test = FrozenImages(
        tuple(bundle.info.classes), reference["labels"], reference["hashes"], lambda bundle: []
    )
    assert _count(bundle, settings, test) == Looks(found.test_set, 597, 1, counted=True)
    assert past_looks(bundle, None, settings).number == 1


@pytest.mark.parametrize("text", ["", "\n", "[]\n", '{"test_set": "t"}\n', "\x00\n"])
def test_a_ledger_with_other_lines_counts_from_what_it_can_read(
    make_bundle: Callable[..., Bundle], settings: Settings, text: str
) -> None:
    settings.home.mkdir(exist_ok=True)
    (settings.home / "looks.jsonl").write_text(text)
    assert _count(make_bundle(), settings).number == 1
