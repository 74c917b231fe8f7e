"""The search on the trained digits' network alone, as the step calls it."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.compression import search
from tasks.compression.candidates import Candidate
from tasks.compression.context import Context
from tasks.data.shards import Shards
from tasks.params import load_params
from tasks.training.models import Classifier, ModelSpec

Network = tuple[Classifier, ModelSpec]


def context_of(network: Network, trained: Path, shards: Shards, folder: Path) -> Context:
    """What the step hands to the search."""
    params = load_params(trained / "conf/params.yaml")
    ranges = params.compress.quantize.model_copy(update={"ranges": "min_max"})
    return Context(
        teacher=network[0],
        spec=network[1],
        train=shards.split("train"),
        validation=shards.split("validation"),
        training=params.train,
        params=params.compress.model_copy(update={"quantize": ranges}),
        folder=folder,
        work=folder / "work",
        budget=params.budget.model_copy(update={"min_agreement": 0.97}),
    )


def candidates(context: Context) -> list[Candidate]:
    """On ONNX Runtime, of the network alone: students take long to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ladders", lambda context: [])
        found = search.Search(context)
        found.run()
    assert found.failed == []
    return [one for one in found.candidates if one.runtime == "onnxruntime"]


def tuning(context: Context, epochs: int) -> Context:
    """The same with compress.quantize.finetune_epochs."""
    quantize = context.params.quantize.model_copy(update={"finetune_epochs": epochs})
    return replace(context, params=context.params.model_copy(update={"quantize": quantize}))
