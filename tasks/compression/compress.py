"""The step `compress`: the trained model → candidates → the one to deploy.

Takes data/model and data/shards, gives data/candidates (ONNX files, candidates.json,
pareto.html), data/metrics/compress.json and data/plots/pareto.csv. Killed and run again, it goes
on from what it had built and the checkpoints of the network it was training, and ends the same.
"""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from tasks.compression.candidates import Candidate, Results
from tasks.compression.choose import choose
from tasks.compression.context import Context
from tasks.compression.ensemble import ENSEMBLE, ONNX
from tasks.compression.networks import FP32
from tasks.compression.pareto import as_text, table, write_csv, write_image, write_page
from tasks.compression.search import Search
from tasks.compression.timing import timed
from tasks.data.shards import Shards, open_shards
from tasks.errors import CompressionError, TrainingError
from tasks.files import sha256, sha256_json, write_directory, write_json
from tasks.params import Settings, load_params, load_settings
from tasks.schema import Budget, Ensemble, Params, Train
from tasks.step import run_step
from tasks.tracking import open_run
from tasks.training.best import apply_best
from tasks.training.ensemble import load_members, vote
from tasks.training.models import WEIGHTS, Classifier, ModelSpec, load_model
from tasks.training.threads import suited_threads

MODEL, CANDIDATES = Path("data/model"), Path("data/candidates")
METRICS, PLOT = Path("data/metrics/compress.json"), Path("data/plots/pareto.csv")
log = logging.getLogger(__name__)


def main() -> None:
    """The step."""
    params, settings, shards = load_params(), load_settings(), open_shards()
    model, spec = load_model(MODEL)
    check_model(model, spec, shards)
    run_key = read_run_key(MODEL)
    training = apply_best(params.train)
    taught = taught_by(params.ensemble, spec)
    work = checkpoints(settings, run_key, shards, training, params)
    context = Context(
        teacher=model,
        spec=spec,
        train=shards.split("train"),
        validation=shards.split("validation"),
        training=training.model_copy(update={"seed": params.compress.seed}),
        params=params.compress,
        folder=work / "graphs",
        work=work,
        budget=params.budget,
        **taught,
    )
    context.folder.mkdir(parents=True, exist_ok=True)
    results = compress(context, params.budget, params.serve.max_batch)
    write(results, context.folder, len(context.validation.labels))
    record(run_key, settings, results, params)
    shutil.rmtree(work, ignore_errors=True)


def compress(context: Context, budget: Budget, batch: int) -> Results:
    """Build, measure and judge the candidates; `batch` is that of the server.

    Raises CompressionError when the fp32 model cannot be exported, or nothing meets the budget
    and the budget does not let fp32 go on.
    """
    search = Search(context)
    with suited_threads(context.teacher, context.spec.size, context.training.batch_size):
        search.run()
    with suited_threads(context.teacher, context.spec.size, 1):  # as eager PyTorch is timed
        timing = timed(search.candidates, context, batch)
        eager_threads = torch.get_num_threads()
    judged = _choose(timing.candidates, search, budget, timing.eager_ms)
    chosen = next(candidate for candidate in judged if candidate.verdict == "chosen")
    return Results(
        chosen=chosen.name,
        reason=chosen.reason,
        fp32=FP32,
        eager_fp32_latency_ms=timing.eager_ms,
        eager_threads=eager_threads,
        batch=batch,
        noise=timing.noise,
        rounds=timing.rounds,
        candidates=judged,
        failed=search.failed,
        skipped=search.skipped,
    )


def check_model(model: Classifier, spec: ModelSpec, shards: Shards) -> None:
    """Raises CompressionError for weights that are not finite, or of other images."""
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise CompressionError(
            f"{MODEL} has weights that are not finite ({broken[0]}"
            f"{f' and {len(broken) - 1} more' if len(broken) > 1 else ''}); train it again with "
            "a lower train.lr: `dvc repro --force train`"
        )
    if (spec.classes, spec.size) != (shards.classes, shards.contract.size):
        raise CompressionError(
            f"{MODEL} was trained on {len(spec.classes)} classes at {spec.size} pixels, "
            f"{shards.path} holds {len(shards.classes)} at {shards.contract.size}; "
            "run `dvc repro train`"
        )


def read_run_key(model: Path) -> str:
    """The training run's key in the tracker; raises TrainingError."""
    path = model / "run.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_key"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{path} does not name the training run ({error}); `dvc repro train` writes it"
        ) from None


def taught_by(config: Ensemble, spec: ModelSpec) -> dict[str, Any]:
    """The ensemble as `Context.mentor`, for inputs of `spec`, and a soup as a candidate too.

    A vote is none: it takes the time of all its members, and the fastest within the budget wins.
    Raises TrainingError when data/ensemble is not what `config` asks for.
    """
    if config.kind == "none":
        return {}
    members = load_members(ENSEMBLE, config)
    soup = (members[0].model, members[0].spec) if config.kind == "soup" else None
    return {"mentor": vote(members, spec), "soup": soup}


def checkpoints(
    settings: Settings, run_key: str, shards: Shards, training: Train, params: Params
) -> Path:
    """Where this compression keeps its checkpoints: another model or setting, another place."""
    parts = [sha256(MODEL / WEIGHTS), shards.digest]
    free = {"minutes", "openvino", "latency_runs", "quantize"}  # they change no network
    parts += [training.model_dump_json(), params.compress.model_dump_json(exclude=free)]
    if params.ensemble.kind != "none":
        parts.append(sha256(ENSEMBLE / ONNX))
    return settings.home / "checkpoints" / f"{run_key}-compress-{sha256_json(parts)[:12]}"


def write(results: Results, built: Path, images: int) -> None:
    """Write data/candidates in one rename, then the metrics and the plot's CSV."""

    def fill(directory: Path) -> None:
        for file in sorted({candidate.file for candidate in results.candidates}):
            shutil.copyfile(built / file, directory / file)
        write_json(directory / "candidates.json", results.model_dump())
        write_page(directory / "pareto.html", results, images)
        write_image(directory / "pareto.png", results)

    write_directory(CANDIDATES, fill)
    write_json(METRICS, metrics(results))
    write_csv(PLOT, results.candidates)


def metrics(results: Results) -> dict[str, float | str]:
    """data/metrics/compress.json: the chosen candidate beside fp32; shares, ms, bytes."""
    chosen, fp32 = results.named(results.chosen), results.named(results.fp32)
    return {
        "chosen": chosen.name,
        "accuracy": chosen.accuracy,
        "fp32_accuracy": fp32.accuracy,
        "agreement": chosen.agreement,
        "latency_ms": chosen.latency_ms,
        "fp32_latency_ms": fp32.latency_ms,
        "eager_fp32_latency_ms": results.eager_fp32_latency_ms,
        "speedup": results.eager_fp32_latency_ms / chosen.latency_ms,
        "size_bytes": chosen.size_bytes,
        "fp32_size_bytes": fp32.size_bytes,
        "parameters": chosen.parameters,
    }


def record(run_key: str, settings: Settings, results: Results, params: Params) -> None:
    """Add the compression to the training run's record, and a run below it a candidate."""
    run = open_run(run_key, "train", settings=settings)
    run.params({"compress": params.compress.model_dump(), "budget": params.budget.model_dump()})
    values = metrics(results)
    run.metrics({f"compress.{k}": v for k, v in values.items() if not isinstance(v, str)})
    run.tags({"candidate": results.chosen})
    for name in ("candidates.json", "pareto.html", "pareto.png"):
        run.file(CANDIDATES / name, "compression")
    run.file(PLOT, "plots")
    for candidate in results.candidates:
        _record_candidate(run_key, settings, candidate)
    run.finish()


def _record_candidate(run_key: str, settings: Settings, candidate: Candidate) -> None:
    plain = re.sub(r"[^a-z0-9]+", "-", candidate.name)
    run = open_run(f"{run_key}-candidate-{plain}", candidate.name, run_key, settings, restart=True)
    values = candidate.model_dump()
    facts = ("technique", "runtime", "threads", "parameters", "parent", "file")
    run.params({name: values[name] for name in facts if values[name] is not None})
    run.metrics({k: v for k, v in values.items() if isinstance(v, int | float) and k not in facts})
    run.tags({"verdict": candidate.verdict, "reason": candidate.reason})
    run.finish()


def _choose(
    measured: list[Candidate], search: Search, budget: Budget, eager: float
) -> list[Candidate]:
    """The verdicts; the table is logged whether or not anything fits."""
    judged = measured
    try:
        judged = choose(measured, budget)
    finally:
        log.info("candidates:\n%s", as_text(table(judged, search.failed, search.skipped)))
        log.info("eager PyTorch fp32: %.3f ms", eager)
    return judged


if __name__ == "__main__":
    run_step(main)
