"""The model code stored with every registered version; MLflow loads this file, not a pickle.

It stands alone: onnxruntime, numpy and pandas, nothing of Visionloop. In: uint8 N×S×S×3.
Out: a table with, for each image, `label`, its `probability`, and all `probabilities` in the
order of the bundle's classes.
"""

import json
from pathlib import Path

import mlflow
import numpy as np
import onnxruntime
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class BundleModel(PythonModel):
    """Runs the ONNX graph of a release bundle."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the session, on the CPU whatever the bundle was measured on."""
        bundle = Path(context.artifacts["bundle"])
        info = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        self.classes = np.array(info["classes"], dtype=object)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = info["runtime"]["intra_op_threads"]
        self.session = onnxruntime.InferenceSession(
            str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Classify uint8 images N×S×S×3; one row an image."""
        images = np.ascontiguousarray(model_input, dtype=np.uint8)
        (probabilities,) = self.session.run(["probabilities"], {"images": images})
        return pd.DataFrame(
            {
                "label": self.classes[probabilities.argmax(axis=1)],
                "probability": probabilities.max(axis=1),
                "probabilities": list(probabilities),
            }
        )


mlflow.models.set_model(BundleModel())
