"""The section `evaluate.ood`: images unlike those that the model was trained on."""

from typing import Literal

from pydantic import Field

from tasks.schema.section import Section

OodScore = Literal["energy", "max_softmax", "mahalanobis", "relative_mahalanobis"]


class OutOfDistribution(Section):
    """How strange an image is, as the deployed graph says it, and from where it is called so."""

    enabled: bool = Field(description="whether the graph scores strangeness at all")
    score: Literal["auto", "energy", "max_softmax", "mahalanobis", "relative_mahalanobis"] = Field(
        description="which score; auto: the best on strange images made of validation images"
    )
    keep: float = Field(
        gt=0.5, le=1, description="share of validation images that are not called strange"
    )
    images: str | None = Field(
        description="a folder of your own strange images; null: only those that are made"
    )
