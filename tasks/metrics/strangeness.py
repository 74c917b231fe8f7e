"""How well a score tells strange images from usual ones; higher scores are stranger."""

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]


def area(usual: Scores, strange: Scores) -> float:
    """AUROC: how often a strange image of [M] scores above a usual one of [N]; a tie is half."""
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([0, 1], [len(usual), len(strange)])
    return float(roc_auc_score(labels, np.concatenate([usual, strange])))


def missed(usual: Scores, strange: Scores, kept: float = 0.95) -> float:
    """The share of strange images that passes where the share `kept` of the usual ones does.

    With 0.95 the field's "FPR at 95 % recall", the usual images being the ones recalled.
    """
    return float((strange < threshold(usual, kept)).mean())


def threshold(usual: Scores, kept: float) -> float:
    """The lowest score from which an image is strange, so that that share of `usual` is not.

    It is the next number above the score of the last one that is kept, in the scores' own type.
    """
    most = np.sort(usual)[max(1, int(np.ceil(kept * len(usual) - 1e-9))) - 1]
    return float(np.nextafter(most, np.inf, dtype=most.dtype))
