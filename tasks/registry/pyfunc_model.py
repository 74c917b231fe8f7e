"""The model code stored with every registered version; MLflow loads this file, not a pickle.

It stands alone: onnxruntime, numpy and pandas, and tasks/decision.py, which lies beside the
bundle. In: uint8 N×S×S×3. Out: a table with a row an image, the server's answer to it.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

_COLUMNS = (
    "label", "probability", "probabilities", "abstain", "prediction_set", "ood_score", "strange",
)  # fmt: skip


class BundleModel(PythonModel):
    """Runs the ONNX graph of a release bundle."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the session, on the CPU whatever the bundle was measured on."""
        bundle = Path(context.artifacts["bundle"])
        info = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        self.classes = info["classes"]
        decision = _module(context.artifacts["decision"])
        self.decision = decision.read_decision(info.get("decision"))
        self.outputs = ["probabilities"] + (["ood_score"] if info.get("ood_score") else [])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = info["runtime"]["intra_op_threads"]
        self.session = onnxruntime.InferenceSession(
            str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Classify uint8 images N×S×S×3; one row an image."""
        images = np.ascontiguousarray(model_input, dtype=np.uint8)
        found = self.session.run(self.outputs, {"images": images})
        return pd.DataFrame(self.decision.answers(self.classes, *found), columns=_COLUMNS)


def _module(path: str) -> Any:
    """A Python file, loaded beside whatever else is imported: two versions keep their own."""
    spec = importlib.util.spec_from_file_location("decision", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mlflow.models.set_model(BundleModel())
