"""MODEL_CARD.md in Hugging Face's format: YAML front matter for machines, text for people."""

from io import StringIO
from pathlib import Path
from typing import Any

from tasks.bundle import BundleInfo, InputContract
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.tables import class_rows, overall, remarks, verdict
from tasks.pages.render import template
from tasks.schema import Params


def render_card(evidence: Evidence, info: BundleInfo, params: Params, dataset: str) -> str:
    """The model card; `dataset` is the name the data set goes by."""
    text = template("MODEL_CARD.md.j2", Path(__file__).parent).render(
        evidence=evidence,
        info=info,
        plain=_is_plain(info.input),
        dataset=dataset,
        level=f"{100 * params.evaluate.confidence:g} %",
        verdict=verdict(evidence, info),
        overall=overall(evidence.deployed),
        fp32=overall(evidence.fp32),
        rows=class_rows(evidence, info.classes),
        remarks=remarks(evidence, info.classes),
        counts={name: len(evidence.shards.split(name)) for name in ("train", "validation", "test")},
    )
    return f"---\n{_yaml(front_matter(evidence, info, params, dataset))}---\n\n{text}\n"


def _is_plain(contract: InputContract) -> bool:
    """Whether a line of Pillow makes this input."""
    same = (contract.colour, contract.normalise.method) == ("rgb", "none")
    return same and contract.resize in ("stretch", "letterbox")


def front_matter(
    evidence: Evidence, info: BundleInfo, params: Params, dataset: str
) -> dict[str, Any]:
    """The card's metadata, with the results as a model-index."""
    scores = overall(evidence.deployed)
    titles = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "f1": "Macro F1"}
    values = {
        "accuracy": scores["accuracy"].value,
        "balanced_accuracy": scores["balanced_accuracy"].value,
        "f1": scores["macro_f1"].value,
    }
    metrics = [
        {"type": kind, "name": titles[kind], "value": round(value, 6), "verified": False}
        for kind, value in values.items()
        if value is not None
    ]
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"type": "image-folder", "name": dataset, "split": "test"},
        "metrics": metrics,
    }
    return {
        "license": params.evaluate.license,
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "onnxruntime", info.architecture],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": f"visionloop-{dataset}", "results": [result]}],
    }


def _yaml(values: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    stream, yaml = StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.dump(values, stream)
    return stream.getvalue()
