"""What the training cost: time, hardware, energy and emissions, as far as they were measured.

Takes data/metrics/train_cost.json of the training step; nothing is estimated here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COST = Path("data/metrics/train_cost.json")
_JOULES = 3.6e6  # in a kilowatt hour


@dataclass(frozen=True)
class TrainingCost:
    """Seconds and joules are None where they were not measured."""

    seconds: float | None
    joules: float | None
    hardware: str

    @property
    def kwh(self) -> float | None:
        """The energy in kilowatt hours."""
        return None if self.joules is None else self.joules / _JOULES

    def emissions(self, grams_per_kwh: float | None) -> float | None:
        """Grams of CO2 at a grid's intensity; None where that or the energy is not known."""
        return None if self.kwh is None or grams_per_kwh is None else self.kwh * grams_per_kwh

    def time(self) -> str:
        """The time in words."""
        if self.seconds is None:
            return "not recorded"
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {seconds} s" if minutes else f"{self.seconds:.1f} s"

    def energy(self) -> str:
        """The energy in words."""
        if self.kwh is None:
            return "not measurable on the machine that trained: it has no counters that can be read"
        return f"{self.kwh:.3g} kWh of all processor packages, other work on them included (RAPL)"


def read_cost(path: Path = COST) -> TrainingCost | None:
    """What the training step recorded; None when it recorded nothing."""
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return TrainingCost(found["seconds"], found["joules"], found["hardware"])
