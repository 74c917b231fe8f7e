"""Where images come from: one model for each layout."""

from typing import Annotated, Literal

from pydantic import Field

from tasks.schema.section import Section

SplitName = Literal["train", "validation", "test"]
TorchvisionName = Literal[
    "CIFAR10",
    "CIFAR100",
    "DTD",
    "FGVCAircraft",
    "FashionMNIST",
    "Flowers102",
    "Food101",
    "GTSRB",
    "Imagenette",
    "KMNIST",
    "MNIST",
    "OxfordIIITPet",
    "PCAM",
    "STL10",
    "SVHN",
    "USPS",
]


class _Source(Section):
    """What every source has."""

    path: str = Field(min_length=1, description="relative to the repository, or absolute")
    folder: str | None = Field(None, description="the folder in it that holds the data")
    labels: dict[str, str | None] = Field(
        default_factory=dict, description="label there: label here; several may merge; null drops"
    )
    split: SplitName | None = Field(None, description="of images whose source gives them none")


class FolderSource(_Source):
    """Class folders, or class folders in folders named train, val and test."""

    layout: Literal["folders", "split_folders"]


class TableSource(_Source):
    """A CSV or Parquet table with the columns path and label."""

    layout: Literal["table"]
    annotations: str = Field(min_length=1, description="the table, relative to path")


class BoxSource(_Source):
    """Boxes in a COCO file or in Pascal VOC files; each becomes an image."""

    layout: Literal["coco", "voc"]
    annotations: str = Field(description="the COCO file or the folder of XML files")
    margin: float = Field(ge=0, le=5, description="added on each side, as a share of the box's")


class TorchvisionSource(_Source):
    """A torchvision data set; its own test split is kept."""

    layout: Literal["torchvision"]
    dataset: TorchvisionName


Source = Annotated[
    FolderSource | TableSource | BoxSource | TorchvisionSource, Field(discriminator="layout")
]
