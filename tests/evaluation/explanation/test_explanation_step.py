"""Explanations as the step gives them: in the metrics, the report and the card."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from small_pipeline import read_metrics

from tasks.data.shards import open_shards
from tasks.errors import TrainingError
from tasks.evaluation.candidates import read_candidates
from tasks.evaluation.evaluate import main
from tasks.evaluation.explanation.choose import Choice
from tasks.evaluation.explanation.explain import measure_explanation
from tasks.evaluation.explanation.figures import Answers, Maps, explanation_figures
from tasks.evaluation.explanation.overlay import AGAINST, FOR, overlay
from tasks.evaluation.pixel_networks import GraphClassifier, as_pixels, fp32_network, shuffled
from tasks.params import load_params
from tasks.training.models import load_model, save_model


def test_the_step_explains_and_says_what_can_be_believed(workplace, set_evaluate):
    set_evaluate(workplace, "adversarial", enabled=False)
    main()
    found = read_metrics(workplace)["explanation"]
    assert sorted(found) == ["grad_cam", "integrated_gradients", "lime", "occlusion", "shap"]
    html = (workplace / "data/bundle/report.html").read_text()
    for method in found.values():
        assert 0 <= method["deletion"] < method["random_deletion"] <= 1
        assert 1 >= method["insertion"] > method["random_insertion"] >= 0
        assert method["gain"]["low"] <= method["gain"]["value"] <= method["gain"]["high"]
        assert method["useful"] == (method["gain"]["low"] > 0 and method["sanity"]["value"] <= 0.5)
    useful = sum(method["useful"] for method in found.values())
    assert useful >= 3
    assert html.count("passes both tests") == useful
    start = html.index("What the answers hang on")
    section = html[start : html.index("</section>", start)]
    pictures = section.count('class="row"')
    assert section.count("<img") == 6 * pictures
    assert len(set(re.findall(r'src="(data:image/png[^"]+)"', section))) > 5 * pictures
    assert "explained images" in (workplace / "data/bundle/MODEL_CARD.md").read_text()


def test_a_network_that_looks_at_nothing_has_no_map_that_says_something(workplace):
    """It answers every image alike: no pixel speaks for that."""
    from tasks.compression.export import export

    model, spec = load_model(workplace / "data/model")
    with torch.no_grad():
        model.head.weight.zero_()
    save_model(workplace / "data/model", model, spec)
    export(model, spec, workplace / "data/candidates/fp32.onnx")
    shards, params = open_shards(), load_params()
    answers = _answers(shards, workplace)
    found = measure_explanation(shards, read_candidates(), answers, params.evaluate)
    assert [one.useful for one in found.judged] == [False] * 5
    assert found.sentence().startswith("By no method")


@pytest.mark.parametrize(
    ("deleted", "inserted", "likeness", "verdict"),
    [
        (0.2, 0.3, 0.1, True),
        (0.2, 0.3, 0.9, False),  # a network of random weights gets that map too
        (0.0, 0.0, 0.1, False),  # the answer hangs as much on any other place
        (-0.1, 0.3, 0.1, False),  # and it goes sooner by another than by these
        (0.3, -0.1, 0.1, False),
        (-0.2, -0.2, 0.1, False),
    ],
)
def test_a_map_must_pass_both_tests(workplace, deleted, inserted, likeness, verdict):
    random = np.random.default_rng(0)
    areas = np.full((30, 2, 2), 0.5)
    areas[:, 0] += np.array((-deleted, inserted)) + random.normal(0, 0.05, (30, 1)) * (-1, 1)
    like = likeness + random.normal(0, 0.02, 30)
    shards, params = open_shards(), load_params().evaluate
    maps = Maps("occlusion", "fp32", np.zeros((30, 16, 16)), areas, like)
    answers = _answers(shards, workplace)
    choices = [Choice(row, "mistake") for row in range(30)]
    images = np.asarray(shards.split("test").images[:30])
    found = explanation_figures(shards, choices, images, answers, np.zeros(30, int), [maps], params)
    assert found.judged[0].useful is verdict
    assert found.skipped == ["Grad-CAM", "Integrated gradients", "SHAP (gradient)", "LIME"]
    gain = areas[:, 0, 1] - areas[:, 0, 0]
    assert found.judged[0].gain[0] == pytest.approx(gain.mean())
    assert ("say nothing" in found.sentence() or "By no method" in found.sentence()) is not verdict


def test_a_deployed_graph_that_is_another_network_is_the_one_asked(workplace):
    """LIME and occlusion follow the graph, the methods with gradients the fp32 network."""
    shards, params, candidates = open_shards(), load_params(), read_candidates()
    answers = _answers(shards, workplace)
    before = measure_explanation(shards, candidates, answers, params.evaluate)
    path = workplace / "data/candidates/fp32.onnx"
    path.write_bytes(shuffled(path, 3))
    after = measure_explanation(shards, candidates, answers, params.evaluate)
    changed = {
        one.method: one.deletion != other.deletion
        for one, other in zip(before.judged, after.judged, strict=True)
    }
    assert changed == {
        "grad_cam": False, "integrated_gradients": False, "shap": False,
        "lime": True, "occlusion": True,
    }  # fmt: skip


def test_the_same_inputs_give_the_same_figures_and_pictures(workplace):
    shards, params = open_shards(), load_params().evaluate
    answers = _answers(shards, workplace)
    one, other = (measure_explanation(shards, read_candidates(), answers, params) for _ in "12")
    assert one == other


def test_turned_off_neither_pytorch_nor_captum_is_loaded(workplace, set_evaluate):
    set_evaluate(workplace, "explanation", enabled=False)
    set_evaluate(workplace, "adversarial", enabled=False)
    code = (
        "import sys; from tasks.evaluation.evaluate import main; main(); "
        "print([name for name in ('torch', 'captum') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("[]")
    assert read_metrics(workplace)["explanation"] is None
    assert read_metrics(workplace)["adversarial"] is None
    html = (workplace / "data/bundle/report.html").read_text()
    assert "What the answers hang on" not in html
    assert "on purpose" not in html


def test_without_the_network_the_way_out_is_named(workplace):
    (workplace / "data/model/model.safetensors").unlink()
    with pytest.raises(TrainingError, match="dvc repro train"):
        main()


def test_a_network_of_other_classes_is_refused(workplace):
    model, spec = load_model(workplace / "data/model")
    save_model(workplace / "data/model", model, spec.model_copy(update={"classes": ("cat", "dog")}))
    with pytest.raises(TrainingError, match="run `dvc repro train`"):
        fp32_network(open_shards())


def test_an_overlay_shows_what_speaks_for_and_against():
    image = np.full((10, 10, 3), 100, np.uint8)
    found = np.zeros((10, 10))
    found[0, 0], found[9, 9] = 2.0, -2.0
    picture = overlay(image, found)
    assert (picture[5, 5] == 100).all()
    np.testing.assert_allclose(picture[0, 0], np.array(FOR) * 0.85 + 15, atol=1)
    np.testing.assert_allclose(picture[9, 9], np.array(AGAINST) * 0.85 + 15, atol=1)
    assert (overlay(image, found * 0) == 100).all()


def _answers(shards, root) -> Answers:
    graph = GraphClassifier(root / "data/candidates/fp32.onnx", "onnxruntime")
    test = shards.split("test")
    logits = graph(as_pixels(np.asarray(test.images)))
    return Answers(logits.softmax(1).double().numpy(), np.asarray(test.labels))
