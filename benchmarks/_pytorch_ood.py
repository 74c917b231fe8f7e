"""pytorch-ood's detectors on logits and embeddings, in a process and an environment of its own."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks._environments import Peer, interpreter

PACKAGES = (
    "pytorch-ood==0.4.0",
    "torch==2.13.0",
    "torchvision==0.28.0",
    "scikit-learn==1.9.1",
)
Outputs = Mapping[str, npt.NDArray[np.float32]]  # "logits" N×C and "embedding" N×D
# Each detector that needs no more than logits and embedding, at its default settings.
_SCRIPT = """
import sys
import numpy as np, torch
from pytorch_ood.detector import KNN, RMD, EnergyBased, Entropy, Mahalanobis, MaxLogit, MaxSoftmax
torch.set_num_threads(1)
folder = sys.argv[1]
read = lambda name: {k: torch.from_numpy(v) for k, v in np.load(f"{folder}/{name}.npz").items()}
train = read("train")
fitted = {kind.__name__: kind(None).fit_features(train["embedding"], train["labels"])
          for kind in (Mahalanobis, RMD, KNN)}
for line in sys.stdin:
    given = read(line.strip())
    found = {name: one.predict_features(given["embedding"]) for name, one in fitted.items()}
    for kind in (MaxSoftmax, MaxLogit, EnergyBased, Entropy):
        found[kind.__name__] = kind(None).predict_logits(given["logits"])
    np.savez(f"{folder}/scores.npz", **{k: np.asarray(v) for k, v in found.items()})
    print("done", flush=True)
"""


def scores(train: Outputs, sets: Mapping[str, Outputs]) -> dict[str, dict[str, npt.NDArray]]:
    """By set and detector the scores, higher is stranger; `train` has "labels" [N] too."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "train.npz", **train)
        with Peer(interpreter("pytorch-ood", *PACKAGES), _SCRIPT, str(folder)) as peer:
            for title, outputs in sets.items():
                np.savez(folder / "set.npz", **outputs)
                peer.ask("set")
                with np.load(folder / "scores.npz") as scored:
                    found[title] = {one: scored[one] for one in scored.files}
    return found
