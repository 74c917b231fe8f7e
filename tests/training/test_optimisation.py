from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import SGD

from tasks.schema import Train
from tasks.training.optimisation import make_optimizer, make_schedule

Config = Callable[..., Train]
EPOCHS, STEPS = 5, 8  # 40 steps


def rates(
    config: Config, losses: list[float] | None = None, **values: Any
) -> tuple[list[float], list[float]]:
    """The learning rate of every step, of a group at 0.1 and of one at 0.02."""
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{"params": [weights[0]]}, {"params": [weights[1]], "lr": 0.02}]
    optimizer = SGD(groups, 0.1)
    schedule = make_schedule(optimizer, config(epochs=EPOCHS, **values), STEPS)
    seen: tuple[list[float], list[float]] = ([], [])
    for epoch in range(EPOCHS):
        for _ in range(STEPS):
            for rate, group in zip(seen, optimizer.param_groups, strict=True):
                rate.append(group["lr"])
            optimizer.step()
            schedule.step()
        schedule.end_epoch(losses[epoch] if losses else 1.0)
    return seen


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "step", "plateau", "constant"])
def test_every_schedule_warms_up_to_the_rate_of_each_group(config: Config, schedule: str):
    losses = [5.0, 4.0, 3.0, 2.0, 1.0]
    high, low = rates(config, losses, schedule=schedule, warmup=0.25, milestones=[0.5])
    rise = high[:10]
    assert rise == sorted(rise)
    assert rise[0] < 0.02
    assert max(high) == pytest.approx(0.1)
    assert low == pytest.approx([rate / 5 for rate in high])
    if schedule != "one_cycle":
        assert rise == pytest.approx([0.1 * (step + 1) / 11 for step in range(10)])
        assert high[10] == pytest.approx(0.1)


def test_cosine_falls_to_nothing_after_the_warm_up(config: Config):
    high, _ = rates(config, schedule="cosine", warmup=0.25)
    part = torch.arange(30) / 30
    expected = 0.05 * (1 + torch.cos(torch.pi * part))
    assert high[10:] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_step_falls_at_the_milestones_whatever_the_warm_up(config: Config, warmup: float):
    high, _ = rates(config, schedule="step", warmup=warmup, milestones=[0.5, 0.75], decay=0.2)
    assert high[4:20] == pytest.approx([0.1] * 16)
    assert high[20:30] == pytest.approx([0.02] * 10)
    assert high[30:] == pytest.approx([0.004] * 10)


def test_plateau_falls_after_as_many_epochs_without_a_better_loss(config: Config):
    losses = [1.0, 0.9, 0.95, 0.92, 0.5]
    values = {"schedule": "plateau", "warmup": 0.0, "decay": 0.5, "plateau_patience": 2}
    high, _ = rates(config, losses, **values)
    assert high == pytest.approx([0.1] * 32 + [0.05] * 8)
    high, _ = rates(config, [1.0] * 5, **{**values, "warmup": 0.6})
    assert high[24:] == pytest.approx([0.1] * 16)  # what is no better in the warm-up is no plateau


def test_constant_stays(config: Config):
    assert rates(config, schedule="constant", warmup=0.0) == ([0.1] * 40, [0.02] * 40)


def test_the_momentum_is_left_as_configured(config: Config):
    model = torch.nn.Linear(2, 2)
    settings = config(momentum=0.8)
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, settings, 3)
    optimizer.step()
    schedule.step()
    assert [group["momentum"] for group in optimizer.param_groups] == [0.8, 0.8]
