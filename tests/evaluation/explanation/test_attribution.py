"""Each method points at the one thing that a real network goes by, and a test that it does."""

import numpy as np
import pytest
import torch

from tasks.data.shards import open_shards
from tasks.evaluation.explanation.attribution import (
    GRADIENT,
    Absence,
    Explained,
    attribution,
    drawn_from,
    last_stage,
)
from tasks.evaluation.explanation.faithfulness import deletion_insertion, likeness
from tasks.evaluation.pixel_networks import (
    GraphClassifier,
    PixelClassifier,
    as_images,
    as_pixels,
    fp32_network,
    shuffled,
)
from tasks.schema import Attribution
from tasks.training.models import build

IMAGES = 12
METHODS = ("grad_cam", "integrated_gradients", "shap", "lime", "occlusion")


@pytest.fixture(scope="module")
def network(planted) -> PixelClassifier:
    return fp32_network(open_shards(planted.root / "data/shards"), planted.root / "data/model")


@pytest.fixture(scope="module")
def graph(planted) -> GraphClassifier:
    return GraphClassifier(planted.root / "data/candidates/fp32.onnx", "onnxruntime")


@pytest.fixture(scope="module")
def absence(network, planted) -> Absence:
    return Absence(network.mean.round(), as_pixels(planted.images[-24:]))


def maps(method: Attribution, network, planted, absence) -> np.ndarray:
    pixels = as_pixels(planted.images[:IMAGES])
    return np.stack(
        [
            attribution(
                method, network, pixels[row : row + 1], int(planted.labels[row]), absence, 0
            )
            for row in range(IMAGES)
        ]
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_planted_cue_is_what_every_method_finds(method, network, graph, planted, absence):
    both = {True: Explained(network, last_stage(network)), False: Explained(graph)}
    found = maps(method, both[method in GRADIENT], planted, absence)
    patches = planted.patches[:IMAGES]
    speaks = np.maximum(found, 0)
    inside = (speaks * patches).sum((1, 2)) / speaks.sum((1, 2))
    assert inside.mean() > 2.5 * patches.mean()
    strongest = [patch.ravel()[one.argmax()] for patch, one in zip(patches, found, strict=True)]
    assert np.mean(strongest) > 0.6


@pytest.mark.parametrize("method", METHODS)
def test_the_answer_hangs_on_it_and_not_on_the_map_elsewhere(
    method, network, graph, planted, absence
):
    explained = Explained(network, last_stage(network)) if method in GRADIENT else Explained(graph)
    found = maps(method, explained, planted, absence)
    areas = np.mean(
        [
            deletion_insertion(
                explained.logits, as_pixels(planted.images[row : row + 1]),
                int(planted.labels[row]), found[row], absence, row,
            )
            for row in range(IMAGES)
        ],
        axis=0,
    )  # fmt: skip
    (deletion, insertion), (elsewhere_deletion, elsewhere_insertion) = areas
    assert deletion < elsewhere_deletion
    assert insertion > elsewhere_insertion


def test_a_map_of_nothing_is_no_better_than_elsewhere(network, planted, absence):
    """A map that is the same everywhere, and one of noise, gain nothing."""
    random = np.random.default_rng(0)
    gains = []
    for row in range(40):
        image, label = as_pixels(planted.images[row : row + 1]), int(planted.labels[row])
        noise = random.normal(size=planted.patches[row].shape)
        areas = deletion_insertion(network, image, label, noise, absence, row)
        gains.append(areas[0] @ (-1, 1) - areas[1] @ (-1, 1))
    assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(len(gains))


def test_deletion_and_insertion_by_hand(absence):
    """A network that looks at one pixel: its answer goes, or comes, when that pixel does."""
    image = torch.full((1, 3, 10, 10), 200.0)
    image[0, :, 3, 4] = 0.0
    dark = Absence(torch.full((1, 3, 1, 1), 200.0), absence.background)

    def logits(pixels: torch.Tensor) -> torch.Tensor:
        seen = (pixels[:, 0, 3, 4] < 1).float() * 40 - 20
        return torch.stack([seen, -seen], 1)

    best = np.zeros((10, 10))
    best[3, 4] = 1
    areas = deletion_insertion(logits, image, 0, best, dark, 0)
    assert areas[0] == pytest.approx([0.05, 0.95], abs=1e-6)  # of ten steps, the first half one
    last = deletion_insertion(logits, image, 0, -best, dark, 0)
    assert last[0] == pytest.approx([0.95, 0.05], abs=1e-6)


def test_a_network_that_knows_nothing_gets_other_maps(network, planted, absence):
    with drawn_from(1):
        blind = PixelClassifier(build(network.spec), network.spec)
    trained = maps("grad_cam", Explained(network, last_stage(network)), planted, absence)
    other = maps("grad_cam", Explained(blind, last_stage(blind)), planted, absence)
    alike = np.mean([likeness(*pair) for pair in zip(trained, other, strict=True)])
    assert alike < 0.5
    # and the check itself: two networks that know nothing are told from one and the same
    assert np.mean([likeness(one, one) for one in trained]) == pytest.approx(1)


def test_a_graph_is_shuffled_layer_by_layer(planted):
    import onnx
    from onnx import numpy_helper

    source = planted.root / "data/candidates/fp32.onnx"
    before, after = onnx.load(source), onnx.load_from_string(shuffled(source, 0))
    changed = 0
    for one, other in zip(before.graph.initializer, after.graph.initializer, strict=True):
        old, new = numpy_helper.to_array(one), numpy_helper.to_array(other)
        np.testing.assert_array_equal(np.sort(old.ravel()), np.sort(new.ravel()))
        changed += int(old.ndim > 1 and not np.array_equal(old, new))
    layers = sum(node.op_type in ("Conv", "Gemm", "MatMul") for node in before.graph.node)
    assert changed == layers > 5
    assert shuffled(source, 0) == shuffled(source, 0) != shuffled(source, 1)


def test_the_graph_and_the_network_answer_alike(network, graph, planted):
    pixels = as_pixels(planted.images[:20])
    np.testing.assert_array_equal(as_images(pixels), planted.images[:20])
    np.testing.assert_allclose(graph(pixels), network(pixels), rtol=1e-3, atol=1e-3)
    assert (network(as_pixels(planted.images)).argmax(1).numpy() == planted.labels).mean() > 0.95


def test_captum_leaves_the_random_states_as_they_were(network, planted, absence):
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    one = maps("shap", Explained(network), planted, absence)
    assert (torch.rand(1), np.random.rand()) == before
    np.testing.assert_array_equal(one, maps("shap", Explained(network), planted, absence))


@pytest.mark.parametrize(
    ("architecture", "size", "cells"),
    [
        ("resnet18", 64, 2), ("mobilenet_v2", 64, 2), ("mobilenet_v3_small", 32, 4),
        ("efficientnet_b0", 32, 4), ("convnext_tiny", 32, 4),
    ],
)  # fmt: skip
def test_grad_cam_has_a_stage_in_every_convolutional_family(
    network, absence, architecture, size, cells
):
    values = {"architecture": architecture, "size": size}
    spec = network.spec.model_copy(update=values)
    other = PixelClassifier(build(spec), spec)
    stage = last_stage(other)
    shapes = []
    assert stage is not None
    stage.register_forward_hook(lambda module, given, out: shapes.append(out.shape[2:]))
    image = torch.rand(1, 3, size, size) * 255
    found = attribution("grad_cam", Explained(other, stage), image, 1, absence, 0)
    assert found.shape == (size, size)
    assert np.isfinite(found).all()
    assert shapes[0] == (cells, cells)


def test_a_vision_transformer_has_no_stage_of_convolutions(network):
    spec = network.spec.model_copy(update={"architecture": "vit_b_16", "size": 28})
    assert last_stage(PixelClassifier(build(spec), spec)) is None
