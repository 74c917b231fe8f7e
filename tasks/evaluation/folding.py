"""The graph to deploy: a candidate with its calibration, and a score of strangeness, folded in."""

from pathlib import Path

import numpy as np

from tasks.bundle import EMBEDDING, OOD_SCORE, PROBABILITIES
from tasks.errors import CompressionError
from tasks.evaluation.additions import Additions
from tasks.evaluation.calibrators import Calibrator
from tasks.evaluation.graph import run_graph
from tasks.evaluation.ood_scores import Score
from tasks.files import atomic_write
from tasks.pixels import Images
from tasks.runtime import Floats, RuntimeName

LOGITS = "logits"
_TOLERANCE = 1e-5  # of a probability: folding may cost float32 rounding, nothing more
_ROUNDING = 1e-6  # of a probability, before what makes it grow
_OF_A_SCORE = 1e-3  # of the largest score
_FALLBACK = 64  # images that ONNX Runtime is asked about where the bundle runs elsewhere


def fold(source: Path, calibrator: Calibrator, score: Score | None, target: Path) -> None:
    """Write the graph of `source` with calibrated probabilities, and a score, as one file.

    Output "logits" becomes "probabilities" (float32 N×C), every other output is kept, and with a
    score there is "ood_score" (float32 [N]) beside them. Raises CompressionError when there is
    no output "logits", or what is folded is not finite.
    """
    import onnx
    from onnx import TensorProto, helper

    if not (np.isfinite(calibrator.temperature.value) and calibrator.temperature.value > 0):
        raise CompressionError(
            f"temperature {calibrator.temperature.value} is not a positive number"
        )
    model = onnx.load(source)
    logits = next((output for output in model.graph.output if output.name == LOGITS), None)
    if logits is None:
        raise CompressionError(f'{source} has no output "{LOGITS}" to calibrate')
    calibration = Additions("calibration")
    calibrator.add(calibration, LOGITS, PROBABILITIES)
    calibration.extend(model.graph)
    if score is not None:
        strangeness = Additions("ood")
        score.add(strangeness, LOGITS, EMBEDDING, OOD_SCORE)
        strangeness.extend(model.graph)
        shape = [logits.type.tensor_type.shape.dim[0].dim_param or None]
        value = helper.make_tensor_value_info(OOD_SCORE, TensorProto.FLOAT, shape)
        model.graph.output.append(value)
    model.graph.value_info.append(logits)
    logits.name = PROBABILITIES
    onnx.checker.check_model(model, full_check=True)
    with atomic_write(target) as stream:
        stream.write(model.SerializeToString(deterministic=True))


def run_folded(
    model: Path, images: Images, score: Score | None, runtime: RuntimeName
) -> list[Floats]:
    """Probabilities, embedding and, where there is a score, that of each image."""
    outputs = [PROBABILITIES, EMBEDDING] + ([OOD_SCORE] if score else [])
    return run_graph(model, images, outputs, runtime)


def check_folded(
    folded: list[Floats],
    before: list[Floats],
    calibrator: Calibrator,
    score: Score | None,
    model: Path,
) -> None:
    """Raise CompressionError unless `run_folded` gives what numpy makes of logits and embedding.

    `before` are the candidate's, of the same images by the same runtime.
    """
    gap = float(np.abs(folded[0] - np.exp(calibrator.logarithms(before[0]))).max())
    if gap > max(_TOLERANCE, _ROUNDING * calibrator.steepness):
        raise CompressionError(
            f"{model.name}: probabilities differ by {gap:.2g} from {calibrator.method} "
            "calibration of the logits; the candidate does not give the same logits twice"
        )
    if score is None:
        return
    wanted = score(*before)
    gap = float(np.abs(folded[2] - wanted).max())
    if gap > _OF_A_SCORE * max(1.0, float(np.abs(wanted).max())):
        raise CompressionError(
            f"{model.name}: the score {score.name} differs by {gap:.2g} from that of the "
            "candidate's logits and embedding; the candidate does not give them twice alike"
        )


def check_elsewhere(
    source: Path, model: Path, images: Images, calibrator: Calibrator, score: Score | None
) -> None:
    """`check_folded` on ONNX Runtime, which a bundle falls back to where its own is missing."""
    some = np.asarray(images[:_FALLBACK])
    before = run_graph(source, some, [LOGITS, EMBEDDING])
    check_folded(run_folded(model, some, score, "onnxruntime"), before, calibrator, score, model)
