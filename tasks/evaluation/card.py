"""MODEL_CARD.md in Hugging Face's format: YAML front matter for machines, text for people."""

from io import StringIO
from pathlib import Path
from typing import Any

from tasks.bundle import BundleInfo, InputContract
from tasks.evaluation.evidence import Evidence
from tasks.evaluation.tables import ClassRow, class_rows, overall, remarks, verdict
from tasks.evaluation.training_cost import TrainingCost, read_cost
from tasks.pages.render import template
from tasks.schema import Params

_HARDEST = 3


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
        hardest=hardest(evidence, info),
        about=params.evaluate.card,
        cost=(cost := read_cost()),
        emissions=cost.emissions(params.evaluate.card.grid_g_co2_per_kwh) if cost else None,
        counts={name: len(evidence.shards.split(name)) for name in ("train", "validation", "test")},
    )
    return f"---\n{_yaml(front_matter(evidence, info, params, dataset))}---\n\n{text}\n"


def hardest(evidence: Evidence, info: BundleInfo) -> list[ClassRow]:
    """The classes that it finds least often, worst first; [] when it finds all there are."""
    rows = class_rows(evidence, info.classes)
    found = [(row.recall.value, row) for row in rows if row.recall.value not in (None, 1.0)]
    return [row for _, row in sorted(found, key=lambda pair: pair[0] or 0.0)[:_HARDEST]]


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
    cost, grid = read_cost(), params.evaluate.card.grid_g_co2_per_kwh
    grams = cost.emissions(grid) if cost else None
    return {
        "license": params.evaluate.license,
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["onnx", "onnxruntime", info.architecture],
        "metrics": ["accuracy", "f1"],
        "model-index": [{"name": f"visionloop-{dataset}", "results": [result]}],
    } | ({} if cost is None or grams is None else _emissions(cost, grams, grid))


def _emissions(cost: TrainingCost, grams: float, grid: float | None) -> dict[str, Any]:
    """Hugging Face's block on emissions: energy that was measured, at the grid's intensity."""
    return {
        "co2_eq_emissions": {
            "emissions": round(grams, 3),
            "source": f"RAPL counters of the processor packages, at {grid:g} g CO2 per kWh",
            "training_type": "the final training, without the sweep and the compression",
            "hardware_used": cost.hardware,
        }
    }


def _yaml(values: dict[str, Any]) -> str:
    from ruamel.yaml import YAML

    stream, yaml = StringIO(), YAML()
    yaml.default_flow_style = False
    yaml.allow_unicode = True
    yaml.dump(values, stream)
    return stream.getvalue()
