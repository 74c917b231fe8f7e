"""Which images are explained, in few and in a thousand classes."""

import numpy as np

from tasks.evaluation.explanation.choose import choose


def answers(classes: int, images: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.3), images)
    labels = np.where(
        random.random(images) < 0.8, probabilities.argmax(1), random.integers(0, classes, images)
    )
    return probabilities, labels


def test_mistakes_come_first_and_then_two_of_each_class():
    probabilities, labels = answers(5, 400)
    chosen = choose(probabilities, labels, 15)
    predicted, confidence = probabilities.argmax(1), probabilities.max(1)
    mistakes = [one.row for one in chosen if one.why == "mistake"]
    wrong = np.flatnonzero(predicted != labels)
    assert mistakes == wrong[np.argsort(-confidence[wrong])][:5].tolist()
    for name in range(5):
        mine = {one.why: one.row for one in chosen if labels[one.row] == name
                and one.why != "mistake"}  # fmt: skip
        right = np.flatnonzero((labels == name) & (predicted == name))
        assert mine["confident"] == right[confidence[right].argmax()]
        pair = np.sort(probabilities, axis=1)[:, -2:]
        margin = pair[:, 1] - pair[:, 0]
        rest = [row for row in np.flatnonzero(labels == name) if row not in mistakes]
        assert margin[mine["borderline"]] == margin[rest].min()
    assert len({one.row for one in chosen}) == len(chosen) == 15


def test_a_thousand_classes_show_those_with_most_mistakes():
    probabilities, labels = answers(1000, 5000)
    chosen = choose(probabilities, labels, 30)
    assert len({one.row for one in chosen}) == len(chosen) == 30
    wrong = probabilities.argmax(1) != labels
    mistakes = np.bincount(labels[wrong], minlength=1000)
    shown = {labels[one.row] for one in chosen if one.why != "mistake"}
    assert min(mistakes[list(shown)]) >= np.sort(mistakes)[-12]


def test_few_classes_leave_room_for_mistakes_and_none_for_repeats():
    probabilities, labels = answers(2, 300)
    chosen = choose(probabilities, labels, 20)
    assert sum(one.why == "mistake" for one in chosen) == 16
    assert len({one.row for one in chosen}) == 20


def test_without_mistakes_or_with_nothing_else():
    probabilities, _ = answers(4, 60)
    right = choose(probabilities, probabilities.argmax(1), 30)
    assert {one.why for one in right} == {"confident", "borderline"}
    assert len(right) == 8
    wrong = choose(probabilities, (probabilities.argmax(1) + 1) % 4, 30)
    assert {one.why for one in wrong} <= {"mistake", "borderline"}
    assert len({one.row for one in wrong}) == len(wrong) == 30
    one = choose(probabilities[:1], probabilities[:1].argmax(1), 30)
    assert [choice.why for choice in one] == ["confident"]
