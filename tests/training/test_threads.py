"""PyTorch has one thread where a network has no work for more, and waiting threads give way."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from tasks.training.models import Classifier, ModelSpec, build
from tasks.training.threads import SMALL, macs, suited_threads


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def network(size: int) -> Classifier:
    spec = ModelSpec(
        architecture="resnet_small",
        width=16,
        depth=1,
        classes=("a", "b"),
        size=size,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    return build(spec)


@pytest.mark.usefixtures("three_threads")
def test_little_work_gets_one_thread_and_much_work_all_of_them():
    batch = SMALL // macs(network(8).eval(), 8)
    with suited_threads(network(8), 8, batch):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 3
    with suited_threads(network(8), 8, batch + 1):
        assert torch.get_num_threads() == 3
    with suited_threads(network(32), 32, 64):
        assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three_threads")
def test_the_threads_are_back_after_an_error():
    with pytest.raises(RuntimeError, match="broken"), suited_threads(network(8), 8, 1):
        raise RuntimeError("broken")
    assert torch.get_num_threads() == 3


def test_counting_changes_neither_the_network_nor_the_random_numbers():
    model = network(8).train()
    model.backbone.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    with suited_threads(model, 8, 64):
        assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("given", "expected"), [(None, "10000"), ("77", "77")])
def test_waiting_threads_spin_shortly_unless_somebody_says_otherwise(given, expected):
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    if given is not None:
        environment["GOMP_SPINCOUNT"] = given
    code = "import tasks, os; print(os.environ['GOMP_SPINCOUNT'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
