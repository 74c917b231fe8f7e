"""The section of the sweep: what is searched, how, for what, and for how long."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from tasks.schema.section import Section

Scalar = str | int | float | bool
Quality = Literal["loss", "accuracy", "macro_f1"]
Objective = Quality | Literal["latency", "size"]


class _Dimension(Section):
    """What every searched key has."""

    when: dict[str, Annotated[list[Scalar], Field(min_length=1)]] | None = Field(
        None, description="searched only where these keys of train have one of these values"
    )


class _Interval(_Dimension):
    """What a range of numbers has, real or whole."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("low must not exceed high, and must be positive when log is true")
        return self


class FloatRange(_Interval):
    """A real hyperparameter's search range."""

    type: Literal["float"]


class IntRange(_Interval):
    """A whole-number hyperparameter's search range."""

    type: Literal["int"]
    low: int
    high: int
    step: int = Field(1, ge=1, description="low, low + step, ... up to high")

    @model_validator(mode="after")
    def _ends_on_a_step(self) -> Self:
        if self.step > 1 and (self.log or (self.high - self.low) % self.step):
            raise ValueError("with a step, high must be low and some steps, and log be false")
        return self


class Choices(_Dimension):
    """A categorical hyperparameter's choices."""

    type: Literal["categorical"]
    choices: list[Scalar] = Field(min_length=1)


Range = Annotated[FloatRange | IntRange | Choices, Field(discriminator="type")]


class Tune(Section):
    """The sweep over training hyperparameters."""

    trials: int | None = Field(ge=1, description="trials of the sweep; null: as minutes allow")
    minutes: float | None = Field(
        gt=0, description="of trials running, after which none is started; null: no limit"
    )
    epochs: int = Field(ge=1, description="of each trial")
    seed: int = Field(ge=0, description="of the sampler")
    sampler: Literal["tpe", "random", "gp", "cmaes"] = Field(
        description="what proposes the next trial"
    )
    pruner: Literal["median", "asha", "hyperband", "none"] = Field(
        description="what ends a trial early; none where there are several objectives"
    )
    objectives: list[Objective] = Field(
        min_length=1,
        description="loss, accuracy or macro_f1 (validation), then latency, size or both",
    )
    keep: int = Field(ge=0, description="best trials whose weights are kept")
    space: dict[str, Range] = Field(description="dotted keys of the train section")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.trials is None and self.minutes is None:
            raise ValueError("a sweep needs an end: set trials, minutes or both")
        return self

    @model_validator(mode="after")
    def _objectives_fit(self) -> Self:
        first, *others = self.objectives
        if first not in get_args(Quality) or not set(others) <= {"latency", "size"}:
            raise ValueError(
                "objectives are loss, accuracy or macro_f1 first, then latency, size or both"
            )
        if len(set(others)) < len(others):
            raise ValueError("objectives must be named once each")
        if others and self.pruner != "none":
            raise ValueError(
                f"pruner {self.pruner} compares trials by one value an epoch, and there are "
                f"{len(self.objectives)} objectives; set pruner to none"
            )
        if others and self.sampler == "cmaes":
            raise ValueError("sampler cmaes knows one objective; take tpe, gp or random")
        return self

    @model_validator(mode="after")
    def _conditions_hold(self) -> Self:
        for key, bounds in self.space.items():
            for other, values in (bounds.when or {}).items():
                _check_condition(key, other, values, self.space)
        in_order(self.space)
        return self


def in_order(space: Mapping[str, Range]) -> list[str]:
    """The searched keys by name, each after those that its `when` asks for.

    Raises ValueError when conditions go round in a circle.
    """
    ordered: list[str] = []
    while len(ordered) < len(space):
        ready = [
            key
            for key in sorted(set(space) - set(ordered))
            if all(other in ordered for other in (space[key].when or {}) if other in space)
        ]
        if not ready:
            circle = ", ".join(sorted(set(space) - set(ordered)))
            raise ValueError(f"space: the conditions of {circle} wait for each other")
        # A condition comes first, but otherwise names decide, conditional or not.
        ordered.append(ready[0])
    return ordered


def _check_condition(
    key: str, other: str, values: list[Scalar], space: Mapping[str, Range]
) -> None:
    """A condition on a searched key names some of that key's choices."""
    if other not in space:
        return
    found = space[other]
    if not isinstance(found, Choices):
        raise ValueError(f"space.{key}.when: {other} is searched as a range; make it categorical")
    unknown = [value for value in values if value not in found.choices]
    if unknown:
        raise ValueError(f"space.{key}.when.{other}: {unknown[0]!r} is none of its choices")
