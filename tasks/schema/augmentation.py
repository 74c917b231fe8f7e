"""The sections augment and imbalance of training, and the presets of augmentation.

A preset is a whole recipe; a key of the section that is not null replaces that key of it.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.schema.section import Section, Share

Policy = Literal["none", "randaugment", "trivialaugment"]
_Strength = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Recipe:
    """What is done to training images: the keys of `Augment`, none of them open."""

    flip: bool = False
    vertical_flip: bool = False
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    resized_crop: float = 1.0
    padding_crop: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    policy: Policy = "none"
    policy_operations: int = 2
    policy_magnitude: int = 9
    erase: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_probability: float = 1.0


PRESETS: dict[str, Recipe] = {
    "none": Recipe(),
    # What small images are usually trained with.
    "light": Recipe(flip=True, padding_crop=0.125),
    # Objects in photographs: any place, a little turned, in another light, partly hidden.
    "standard": Recipe(
        flip=True,
        shift=0.1,
        rotate=10.0,
        scale=0.1,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        hue=0.02,
        erase=0.25,
    ),
    # For large networks and many epochs; short trainings get worse by it.
    "strong": Recipe(
        flip=True,
        padding_crop=0.125,
        policy="trivialaugment",
        erase=0.25,
        mixup=0.2,
        cutmix=1.0,
        mix_probability=0.5,
    ),
}


class Augment(Section):
    """Random changes of the training images; null takes the preset's value."""

    preset: Literal["none", "light", "standard", "strong"] = Field(
        description="what the keys that are null are taken from"
    )
    flip: bool | None = Field(description="left-right")
    vertical_flip: bool | None = Field(description="upside down")
    shift: float | None = Field(ge=0, le=0.5, description="share of the side")
    rotate: float | None = Field(ge=0, le=180, description="degrees")
    scale: float | None = Field(ge=0, lt=1, description="share")
    shear: float | None = Field(ge=0, le=60, description="degrees")
    resized_crop: float | None = Field(
        gt=0, le=1, description="smallest share of the area that is cut out and enlarged; 1: off"
    )
    padding_crop: float | None = Field(
        ge=0, le=0.5, description="share of the side added (mirrored) before a random crop"
    )
    brightness: _Strength | None = Field(description="share")
    contrast: _Strength | None = Field(description="share")
    saturation: _Strength | None = Field(description="share")
    hue: float | None = Field(ge=0, le=0.5, description="share of the circle of colours")
    blur: float | None = Field(ge=0, le=20, description="largest deviation of the Gaussian, pixels")
    noise: Share | None = Field(description="largest deviation, share of the range of grey levels")
    policy: Policy | None = Field(description="operations drawn for each image")
    policy_operations: int | None = Field(ge=1, le=14, description="of randaugment, per image")
    policy_magnitude: int | None = Field(ge=0, le=30, description="of randaugment")
    erase: Share | None = Field(description="probability that a rectangle is erased")
    cutout: Share | None = Field(description="side of a square cut out of every image, share")
    mixup: float | None = Field(ge=0, le=10, description="alpha of MixUp; 0: off")
    cutmix: float | None = Field(ge=0, le=10, description="alpha of CutMix; 0: off")
    mix_probability: Share | None = Field(description="that an image is mixed, by either")

    @property
    def recipe(self) -> Recipe:
        """The preset, with the keys that are given in place of its own."""
        preset, own = PRESETS[self.preset], self.model_dump(exclude={"preset"})
        given = {key: value for key, value in own.items() if value is not None}
        return Recipe(
            **{field.name: getattr(preset, field.name) for field in fields(Recipe)} | given
        )


class Imbalance(Section):
    """What is done about classes of unequal size."""

    sampling: Literal["none", "oversample", "undersample"] = Field(
        description="every class as often as the largest, or as the smallest"
    )
    class_weights: Literal["none", "inverse", "effective_number"] = Field(
        description="of the loss, by images of the class"
    )
    beta: float = Field(ge=0, lt=1, description="of effective_number; nearer to 1, nearer inverse")
    focal_gamma: float = Field(ge=0, le=10, description="of the focal loss; 0: cross-entropy")
    logit_adjustment: float = Field(
        ge=0, le=5, description="times the log of the class shares, added in training; 0: off"
    )

    @model_validator(mode="after")
    def _corrected_once(self) -> Self:
        given = {
            f"sampling {self.sampling}": self.sampling != "none",
            f"class_weights {self.class_weights}": self.class_weights != "none",
            f"logit_adjustment {self.logit_adjustment:g}": self.logit_adjustment > 0,
        }
        chosen = [name for name, is_on in given.items() if is_on]
        if len(chosen) > 1:
            raise ValueError(
                f"{' and '.join(chosen)} would correct the class sizes twice; keep one of them"
            )
        if self.focal_gamma and self.logit_adjustment:
            raise ValueError(
                f"focal_gamma {self.focal_gamma:g} is not defined on adjusted logits; set it or "
                "logit_adjustment to 0"
            )
        return self

    @property
    def remedy(self) -> str:
        """The settings that are not at rest, in words; "none" when all are."""
        words = [f"{self.sampling}"] if self.sampling != "none" else []
        if self.class_weights == "effective_number":
            words.append(f"effective-number weights (beta {self.beta:g})")
        elif self.class_weights == "inverse":
            words.append("inverse class weights")
        if self.focal_gamma:
            words.append(f"focal loss (gamma {self.focal_gamma:g})")
        if self.logit_adjustment:
            words.append(f"logit adjustment (tau {self.logit_adjustment:g})")
        return ", ".join(words) or "none"
