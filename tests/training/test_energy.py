"""What training cost: the kernel's energy counters as they are, and no figure without them."""

from dataclasses import replace
from pathlib import Path

import torch

from tasks.training.energy import Meter, training_cost
from tasks.training.health import Epoch

CPU = torch.device("cpu")
EPOCH = Epoch(1, 0.2, 0.1, 0.9, 0.9, 0.1, 1.0, 1000.0, 50.0, seconds=2.0, joules=30.0)


def package(root: Path, number: int, microjoules: int, highest: int = 262_143_328_850) -> Path:
    """A processor package as in /sys/class/powercap, with its cores as a part of it."""
    for name in (f"intel-rapl:{number}", f"intel-rapl:{number}:0"):
        (root / name).mkdir(parents=True)
        (root / name / "energy_uj").write_text(f"{microjoules}\n")
        (root / name / "max_energy_range_uj").write_text(f"{highest}\n")
    return root / f"intel-rapl:{number}" / "energy_uj"


def test_the_energy_is_that_of_all_packages_their_parts_not_counted_twice(tmp_path):
    first, second = package(tmp_path, 0, 5_000_000), package(tmp_path, 1, 0)
    meter = Meter(CPU, tmp_path)
    first.write_text("7500000\n")
    second.write_text("1000000\n")
    assert meter.joules == 3.5
    first.write_text("8000000\n")
    assert meter.joules == 4.0


def test_a_counter_that_starts_again_goes_on_counting(tmp_path):
    counter = package(tmp_path, 0, 9_999_999, highest=9_999_999)
    meter = Meter(CPU, tmp_path)
    counter.write_text("1999999\n")
    assert meter.joules == 2.0


def test_without_counters_there_is_no_figure(tmp_path):
    assert Meter(CPU, tmp_path / "none").joules is None
    counter = package(tmp_path, 0, 5)
    assert Meter(torch.device("cuda"), tmp_path).joules is None
    meter = Meter(CPU, tmp_path)
    counter.unlink()  # as unreadable as one that root alone may read
    assert meter.joules is None


def test_the_cost_is_that_of_all_epochs_and_unknown_when_one_is():
    cost = training_cost([EPOCH, replace(EPOCH, epoch=2, seconds=3.0)], CPU)
    assert (cost["seconds"], cost["joules"], cost["device"]) == (5.0, 60.0, "cpu")
    assert ", " in cost["hardware"]
    assert "thread" in cost["hardware"]
    assert training_cost([EPOCH, replace(EPOCH, joules=None)], CPU)["joules"] is None
    assert training_cost([EPOCH, replace(EPOCH, seconds=0.0)], CPU)["seconds"] is None
