"""What a candidate's answers are worth beside those of fp32."""

import numpy as np
import pytest

from tasks.compression.accuracy import accuracy_of


def test_accuracies_are_judged_beside_those_of_fp32() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2], np.int64)
    before = np.eye(3, dtype=np.float32)[labels] * 9
    found = before.copy()
    found[[0, 4, 5]] = found[[0, 4, 5]][:, [1, 2, 0]]  # one 0 and two 1s go elsewhere
    judged = accuracy_of(found, before, labels, ("a", "b", "c"))
    assert judged["accuracy"] == pytest.approx(0.7)
    assert judged["accuracy_change"] == pytest.approx(-0.3)
    assert judged["accuracy_change_low"] < -0.3 < judged["accuracy_change_high"] <= 0.1
    assert judged["accuracy_low"] < 0.7 < judged["accuracy_high"]
    assert (judged["worst_recall_class"], judged["worst_recall_change"]) == ("b", -0.5)
    assert judged["agreement"] == pytest.approx(0.7)
    assert judged["calibration_error"] == pytest.approx(0.3, abs=0.01)
