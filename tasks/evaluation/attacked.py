"""Answers to attacked images, as figures and sentences for the report, the card, the metrics."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from markupsafe import Markup

from tasks.metrics.bootstrap import share_interval
from tasks.metrics.classification import Ints
from tasks.pages.charts import Series, chart
from tasks.pages.render import percent

Attack = Literal["fgsm", "pgd"]
ATTACKS: tuple[Attack, ...] = get_args(Attack)
PGD_STEPS = 10
Share = tuple[float, float, float]  # value, low, high
_ENDS = ("value", "low", "high")


@dataclass(frozen=True)
class Attacked:
    """What two models answer to N test images, as they are and attacked at L levels of 255."""

    rows: Ints
    """The images of the test split, int64 [N]."""
    labels: Ints
    levels: list[int]
    fp32_clean: Ints
    """The class that the attacked network gives to each image as it is, [N]."""
    deployed_clean: Ints
    fp32: dict[Attack, Ints]
    """And when attacked, L×N."""
    deployed: dict[Attack, Ints]
    smallest: Ints
    """Of up to M images that the network gets right, the least level at which PGD makes it err;
    one more than the highest level where it does not. int64 [M]."""


@dataclass(frozen=True)
class LevelRow:
    """Accuracy at a level, with exact intervals; level 0 is the images as they are."""

    level: int
    fp32: dict[Attack, Share]
    deployed: dict[Attack, Share]


@dataclass(frozen=True)
class AdversarialFigures:
    """Shares in 0..1, each (value, low, high)."""

    found: Attacked
    rows: list[LevelRow]

    @property
    def images(self) -> int:
        """That were attacked."""
        return len(self.found.rows)

    @property
    def pgd_steps(self) -> int:
        """Of each attack by PGD."""
        return PGD_STEPS

    @property
    def quartiles(self) -> list[int | None]:
        """The level at which a quarter, half and three quarters of the right answers are lost.

        None where the highest level is not enough. [] when no answer was right.
        """
        if not len(self.found.smallest):
            return []
        ends = np.quantile(self.found.smallest, (0.25, 0.5, 0.75), method="higher")
        return [int(end) if end <= self.found.levels[-1] else None for end in ends]

    def as_metrics(self) -> dict[str, Any]:
        """For data/metrics/evaluate.json."""

        def shares(given: dict[Attack, Share]) -> dict[str, Any]:
            return {name: dict(zip(_ENDS, share, strict=True)) for name, share in given.items()}

        return {
            "images": self.images,
            "accuracy": {
                str(row.level): {"fp32": shares(row.fp32), "deployed": shares(row.deployed)}
                for row in self.rows
            },
            "smallest_change": {
                "images": len(self.found.smallest),
                "quartiles": self.quartiles,
                "searched_up_to": self.found.levels[-1],
            },
        }

    def sentence(self) -> str:
        """What a reader must know, in a few sentences."""
        clean, last = self.rows[0], self.rows[-1]
        fp32, deployed = (
            [percent(getattr(row, key)["pgd"][0]) for row in (clean, last)]
            for key in ("fp32", "deployed")
        )
        told = (
            f"Changed by at most {_levels(last.level)} of 255 so that the fp32 network errs (PGD), "
            f"{fp32[1]} of its answers to test images are still right ({fp32[0]} as they are), and "
            f"{deployed[1]} of the deployed model's to the same images ({deployed[0]})."
        )
        return f"{told} {self._median()}".strip()

    def _median(self) -> str:
        if not self.quartiles:
            return ""
        half = self.quartiles[1]
        if half is None:
            return f"Half of the right answers or more withstand {_levels(self.found.levels[-1])}."
        return f"Half of the right answers are lost at {_levels(half)} or less."

    def chart(self) -> Markup:
        """Accuracy against the level, of both models under PGD."""
        x = [float(row.level) for row in self.rows]
        parts = [
            Series("deployed", x, [row.deployed["pgd"][0] for row in self.rows], "s1"),
            Series("fp32, attacked", x, [row.fp32["pgd"][0] for row in self.rows], "s2"),
        ]
        return chart("Accuracy under PGD", "levels of 255", "accuracy", parts, shares=True)


def adversarial_figures(found: Attacked, confidence: float) -> AdversarialFigures:
    """The figures of `found`, with exact binomial intervals at `confidence`."""

    def right(answers: Ints) -> Share:
        return share_interval(answers == found.labels, confidence)

    clean = LevelRow(
        0,
        dict.fromkeys(ATTACKS, right(found.fp32_clean)),
        dict.fromkeys(ATTACKS, right(found.deployed_clean)),
    )
    rows = [
        LevelRow(
            level,
            {name: right(found.fp32[name][at]) for name in ATTACKS},
            {name: right(found.deployed[name][at]) for name in ATTACKS},
        )
        for at, level in enumerate(found.levels)
    ]
    return AdversarialFigures(found, [clean, *rows])


def _levels(count: int) -> str:
    return f"{count} level{'s' if count > 1 else ''}"
