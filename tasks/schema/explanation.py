"""The sections evaluate.explanation and evaluate.adversarial: what answers hang on."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.schema.section import Section

Attribution = Literal["grad_cam", "integrated_gradients", "shap", "lime", "occlusion"]
Level = Annotated[int, Field(ge=1, le=128)]


class Explanation(Section):
    """Maps of what speaks for an answer, and how far they can be believed."""

    enabled: bool = Field(description="whether answers are explained at all")
    images: int = Field(ge=6, le=60, description="of the test split, that are explained")
    methods: list[Attribution] = Field(
        min_length=1,
        description="of grad_cam (not of vision transformers), integrated_gradients, shap, "
        "lime, occlusion",
    )

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: list[Attribution]) -> list[Attribution]:
        if len(set(methods)) < len(methods):
            raise ValueError("evaluate.explanation.methods: name each method once")
        return methods


class Adversarial(Section):
    """Accuracy on test images that were changed so that the answer changes."""

    enabled: bool = Field(description="whether it is measured at all")
    images: int = Field(ge=1, description="of the test split, at most")
    levels: list[Level] = Field(
        min_length=1, description="most that a pixel's colour changes, in levels of 255, rising"
    )

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: list[Level]) -> list[Level]:
        if sorted(set(levels)) != levels:
            raise ValueError("evaluate.adversarial.levels must rise, each once, as in [1, 2, 4]")
        return levels
