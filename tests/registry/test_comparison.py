"""Two bundles beside each other: on the frozen images, and on their own answers."""

import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pytest
from changed_bundles import changed, from_before, others

from tasks.errors import BundleError
from tasks.params import load_params
from tasks.registry.comparison import compare_bundles, write_comparison

PARAMS = load_params(Path(__file__).parents[2] / "conf/params.yaml")
HELD_OUT = slice(1200, None)


def test_the_figures_are_those_of_the_answers_to_the_same_images(
    make_bundle, root, digit_images, digit_labels
):
    a, b = make_bundle(1e-4, "a"), make_bundle(0.1, "b")
    found = compare_bundles(a, b, ("old", "new"), PARAMS, root).found
    labels = digit_labels[HELD_OUT]
    old, new = (one.predict(digit_images[HELD_OUT])[0].argmax(1) == labels for one in (a, b))
    assert found.difference[0] == pytest.approx(new.mean() - old.mean())
    assert found.difference[1] < found.difference[0] < found.difference[2]
    assert {one.row for one in found.fixed} == set(np.flatnonzero(new & ~old))
    assert {one.row for one in found.broken} == set(np.flatnonzero(old & ~new))
    sevens = next(one for one in found.classes if one.name == "7")
    assert sevens.images == (labels == 7).sum()
    assert sevens.b - sevens.a == pytest.approx(sevens.change[0])
    assert sevens.a == pytest.approx(old[labels == 7].mean())
    assert "new is better" in found.verdict


def test_the_page_shows_the_changed_images_and_loads_nothing(make_bundle, root, tmp_path):
    a, b = make_bundle(1e-4, "a"), make_bundle(0.1, "b")
    compared = compare_bundles(a, b, ("old <1>", "new"), PARAMS, root)
    write_comparison(tmp_path / "page.html", compared, PARAMS)
    html = (tmp_path / "page.html").read_text()
    assert "old &lt;1&gt;" in html
    assert re.search(r"digits/\d/\d{4}.png", html)
    shown = sum(
        min(len(kind), PARAMS.evaluate.worst_mistakes)
        for kind in (compared.found.fixed, compared.found.broken)
    )
    assert html.count('src="data:image/png') == shown > 24
    assert not re.search(r'(src|href)="(?!data:image|#)', html)


def test_the_same_bundle_twice_is_said(digits_bundle, root):
    with pytest.raises(BundleError, match="x and y are the same bundle"):
        compare_bundles(digits_bundle, digits_bundle, ("x", "y"), PARAMS, root)


def test_other_classes_leave_their_images_out(make_bundle, root, settings, digit_labels):
    a = make_bundle(0.1, "a")
    names = [*a.info.classes[:9], "nine"]
    b = changed(make_bundle(0.05, "b"), "renamed", settings, info={"classes": names})
    found = compare_bundles(a, b, ("a", "b"), PARAMS, root).found
    assert found.only == (["9"], ["nine"])
    assert found.left_out == (digit_labels[HELD_OUT] == 9).sum()
    assert "9" not in {one.name for one in found.classes}
    c = changed(a, "other", settings, info={"classes": [f"{name}!" for name in a.info.classes]})
    with pytest.raises(BundleError, match="no class in common"):
        compare_bundles(a, c, ("a", "c"), PARAMS, root)


def test_another_input_size_without_files_is_compared_by_the_answers(make_bundle, root, settings):
    """The images would have to be decoded anew; those packed are not of that size."""
    a = make_bundle(0.1, "a")
    contract = a.info.input.model_copy(update={"size": 16})
    b = changed(make_bundle(0.05, "b"), "larger", settings, info={"input": contract})
    compared = compare_bundles(a, b, ("a", "b"), PARAMS, root)
    assert "splits.parquet" in str(compared.note)
    assert compared.picture is None


def test_without_images_the_bundles_own_answers_are_compared(make_bundle, settings, tmp_path):
    a, b = make_bundle(0.001, "a"), make_bundle(0.1, "b")
    compared = compare_bundles(a, b, ("a", "b"), PARAMS, tmp_path)
    assert compared.found.images == (b.metrics() or {})["test_images"]
    assert compared.picture is None
    assert "no shards" in str(compared.note)
    write_comparison(tmp_path / "page.html", compared, PARAMS)
    said = "Compared is what the bundles carry of the same test images."
    assert said in (tmp_path / "page.html").read_text()
    older = changed(a, "older", settings, files=from_before)
    assert compare_bundles(older, b, ("a", "b"), PARAMS, tmp_path).found == replace(
        compared.found, a=ANY, b=ANY
    )
    oldest = changed(b, "oldest", settings, files=from_before)
    with pytest.raises(BundleError, match=r"Of a and b: .* from before bundles counted"):
        compare_bundles(older, oldest, ("a", "b"), PARAMS, tmp_path)
    elsewhere = changed(b, "elsewhere", settings, files=others)
    with pytest.raises(BundleError, match=r"Of a and b: .*other test images .* 0 in both"):
        compare_bundles(a, elsewhere, ("a", "b"), PARAMS, tmp_path)
