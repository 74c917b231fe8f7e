"""What is measured is what is deployed: the folded file, in the bundle, its report and the gate."""

import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from ruamel.yaml import YAML
from small_pipeline import read_metrics

from tasks.bundle import Bundle, open_bundle
from tasks.data.shards import open_shards
from tasks.evaluation.candidates import read_candidates
from tasks.evaluation.deployed_cost import deployed_cost
from tasks.evaluation.evaluate import main
from tasks.params import load_params, load_settings
from tasks.registry.gate import decide

MEGABYTE = 1_000_000


def limit(root: Path, **limits: float) -> None:
    params = YAML().load(root / "conf/params.yaml")
    params["budget"].update(limits)
    YAML().dump(params, root / "conf/params.yaml")


def evaluated(root: Path) -> Bundle:
    main()
    return open_bundle(root / "data/bundle", load_settings())


def test_the_figures_are_of_the_file_in_the_bundle(pipeline: Path) -> None:
    bundle = evaluated(pipeline)
    candidates, found = read_candidates(), read_metrics(pipeline)
    chosen, fp32 = candidates.named("int8"), candidates.named("fp32")
    file, measured = bundle.path / "model.onnx", bundle.info.measurements
    assert found["size_bytes"] == measured.size_bytes == file.stat().st_size > chosen.size_bytes
    # What compress says of its candidates was made up for these tests, so nothing can be a copy.
    assert found["latency_ms"] == measured.latency_ms != chosen.latency_ms
    assert found["latency_p95_ms"] >= found["latency_ms"] > 0
    assert found["memory_bytes"] != chosen.memory_bytes
    assert found["memory_bytes"] > file.stat().st_size
    assert found["candidate"] == {
        "name": "int8",
        "latency_ms": chosen.latency_ms,
        "size_bytes": chosen.size_bytes,
        "memory_bytes": chosen.memory_bytes,
    }
    ratio = found["latency_ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    eager = candidates.eager_fp32_latency_ms / fp32.latency_ms
    assert measured.eager_fp32_latency_ms / found["fp32_latency_ms"] == pytest.approx(eager)


def test_the_report_says_which_figures_are_of_what(pipeline: Path) -> None:
    evaluated(pipeline)
    html = (pipeline / "data/bundle/report.html").read_text()
    found = read_metrics(pipeline)
    assert "As compress measured them, before calibration and a score are folded in" in html
    told = re.search(r"candidate: ([\d.]+) ms, ([\d.]+) times fp32 .*? and ([\d.]+) times", html)
    assert told is not None
    assert float(told[1]) == pytest.approx(found["latency_ms"], rel=5e-3)
    assert float(told[2]) == pytest.approx(found["latency_ratio"]["value"], abs=6e-4)
    assert float(told[3]) == pytest.approx(found["folding_latency_ratio"], abs=6e-4)


def test_a_file_is_measured_once_and_another_one_anew(pipeline: Path) -> None:
    main()
    settings, shards, candidates = load_settings(), open_shards(), read_candidates()
    model = pipeline / "data/bundle/model.onnx"
    runs = load_params().compress.latency_runs
    (kept,) = (settings.home / "measured").iterdir()
    first = deployed_cost(model, candidates, shards, runs, settings)
    assert first.deployed.median_ms == read_metrics(pipeline)["latency_ms"]
    assert list(kept.parent.iterdir()) == [kept]

    kept.write_text("{}")  # as after a release that measured something else
    again = deployed_cost(model, candidates, shards, runs, settings)
    assert again.size_bytes == first.size_bytes
    assert kept.read_text() != "{}"

    other = pipeline / "other.onnx"
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(other)
    onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    assert deployed_cost(other, candidates, shards, runs, settings).size_bytes != first.size_bytes
    assert len(list(kept.parent.iterdir())) == 2


@pytest.mark.parametrize("effect", ["block", "warn"])
def test_a_limit_that_the_candidate_kept_and_the_deployed_graph_misses(
    pipeline: Path, effect: str
) -> None:
    """Set between the size of the candidate's file and that of the deployed one."""
    plain = evaluated(pipeline)
    candidate = read_candidates().named("int8").size_bytes / MEGABYTE
    between = (candidate + plain.info.measurements.size_bytes / MEGABYTE) / 2
    assert not any("misses the budget" in said for said in read_metrics(pipeline)["remarks"])
    limit(pipeline, max_size_mb=between)
    bundle = evaluated(pipeline)

    (remark,) = (r for r in read_metrics(pipeline)["remarks"] if "misses the budget" in r)
    assert f"exceeds budget.max_size_mb {between:g}. Its candidate int8 kept it" in remark
    assert "gate.on_failure.size says what follows" in remark
    assert remark in (bundle.path / "MODEL_CARD.md").read_text()

    params = load_params()
    effects = params.gate.on_failure.model_copy(update={"size": effect})
    gate = params.gate.model_copy(update={"on_failure": effects})
    decision = decide(bundle, None, None, gate, params.budget)
    (rule,) = (rule for rule in decision.rules if rule.name == "size")
    assert (rule.verdict, rule.effect) == ("fail", effect)
    assert decision.outcome == ("block" if effect == "block" else "promote")
    told = rf"size [\d.]+ MB \(the candidate's {candidate:.3g} MB, and what was folded into it\)"
    assert re.search(told, rule.reason)


def test_a_limit_that_the_candidate_missed_too_is_not_laid_to_folding(pipeline: Path) -> None:
    limit(pipeline, max_memory_mb=1.0)
    bundle = evaluated(pipeline)
    (remark,) = (r for r in read_metrics(pipeline)["remarks"] if "misses the budget" in r)
    assert "budget.max_memory_mb 1. gate.on_failure.memory says what follows" in remark
    params = load_params()
    decision = decide(bundle, None, None, params.gate, params.budget)
    assert decision.outcome == "block"
    assert "folded" not in decision.reason


def test_measuring_needs_no_pytorch() -> None:
    """Which would take evaluate seconds to import where nothing else needs it."""
    code = "import sys, tasks.evaluation.deployed_cost; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
