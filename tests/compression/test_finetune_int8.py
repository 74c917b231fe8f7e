"""Fine-tuning with int8 simulated: the simulation is what runs, and training is the product's."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from building import candidates, context_of, tuning
from torch import nn

from tasks.compression.calibration import observe, ranges
from tasks.compression.export import export
from tasks.compression.finetune_int8 import finetune_int8
from tasks.compression.int8 import activations, prepare, to_int8
from tasks.compression.runtime import logit_error, run_logits
from tasks.compression.simulated_int8 import _Activation, _Weighted, simulate_int8
from tasks.data.shards import Shards, ShardSplit
from tasks.errors import CompressionError
from tasks.runtime import open_session
from tasks.schema import Compress, Params, Train
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec, normalise

Network = tuple[Classifier, ModelSpec]
Splits = tuple[ShardSplit, ShardSplit]
KillAt = Callable[[int, Callable[[], object]], None]


@pytest.fixture(scope="module")
def splits(digit_shards: Shards) -> Splits:
    return digit_shards.split("train"), digit_shards.split("validation")


def settings(conf: Params, epochs: int, lr: float) -> tuple[Train, Compress]:
    """The sections train and compress."""
    brief = {"finetune_epochs": epochs, "finetune_lr": lr}
    quantize = conf.compress.quantize.model_copy(update=brief)
    return conf.train, conf.compress.model_copy(update={"quantize": quantize})


class Gated(nn.Module):
    """What mobile networks have: ReLU6, Hardswish, a gate, a sum in place, a last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Hardswish(True))
        self.depthwise = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.BatchNorm2d(16), nn.ReLU6(True)
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 8, 1), nn.ReLU(True), nn.Conv2d(8, 16, 1)
        )
        self.project = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
        self.last = nn.Sequential(nn.Linear(16, 16), nn.Hardswish(True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.depthwise(x)
        y = self.project(y * nn.functional.hardsigmoid(self.gate(y)))
        y += x
        return self.last(y.mean((2, 3)))


@pytest.fixture(scope="module")
def gated(network: Network, splits: Splits) -> Network:
    torch.manual_seed(0)
    model = Classifier(Gated(), nn.Linear(16, 10)).train()
    with torch.no_grad():  # batch norms that fit what they see
        for _ in range(30):
            model(normalise(torch.from_numpy(np.array(splits[0].images[:64])), network[1]))
    return model.eval(), network[1]


def lacking(simulated: Classifier) -> Iterator[Classifier]:
    """The simulation without one of its roundings, each in turn."""
    for name, module in simulated.named_modules():
        if isinstance(module, _Activation | _Weighted):
            other = copy.deepcopy(simulated)
            other.set_submodule(name, getattr(module, "layer", nn.Identity()))
            yield other


@pytest.mark.parametrize("name", ["network", "gated"])
def test_the_simulation_computes_what_the_int8_graph_does(
    name: str, splits: Splits, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the same places too, but for poolings, which round nothing that is not rounded."""
    train, images = np.array(splits[0].images[:64]), splits[1].images
    model, spec = request.getfixturevalue(name)
    export(model, spec, tmp_path / "fp32.onnx")
    graph = prepare(tmp_path / "fp32.onnx")
    int8 = to_int8(graph, ranges(observe(graph, activations(graph), train), "min_max"))
    made = run_logits(open_session(int8.SerializeToString(), 1), images)
    simulated = simulate_int8(model, spec, train, "min_max")
    lost = logit_error(made, predict(model, images, spec))
    apart = logit_error(predict(simulated, images, spec), made)
    assert apart < 0.4 * lost
    # Without one of its places it is further from the graph, and for most of them much further.
    without = [logit_error(predict(one, images, spec), made) for one in lacking(simulated)]
    assert np.median(without) > 1.5 * apart
    rounded = {n.input[0] for n in int8.graph.node if n.op_type == "QuantizeLinear"}
    places = [n for n in simulated.state_dict() if n.endswith(".zero_point")]
    assert len(places) == sum("MaxPool" not in value for value in rounded)


def test_linear_layers_on_every_position_are_simulated_and_the_pooled_are_not(
    network: Network, splits: Splits
) -> None:
    class Mixer(nn.Module):
        """A convolution, a linear layer on its positions, and one on what is pooled of them."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.every, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x).permute(0, 2, 3, 1)
            return self.last((y + self.every(y)).mean((1, 2)))

    torch.manual_seed(0)
    model = Classifier(Mixer(), nn.Linear(8, 10)).eval()
    images = np.array(splits[0].images[:32])
    names = simulate_int8(model, network[1], images, "min_max").state_dict()
    assert {n for n in names if n.endswith("layer.weight")} == {
        "backbone.first.layer.weight",
        "backbone.every.layer.weight",
    }
    # what goes into each and comes out of it; the sum stays in float
    assert sum(name.endswith(".zero_point") for name in names) == 4


def test_attention_is_refused(network: Network, splits: Splits) -> None:
    model = Classifier(nn.MultiheadAttention(8, 2), nn.Linear(8, 10))
    with pytest.raises(CompressionError, match="finetune_epochs to 0"):
        simulate_int8(model, network[1], np.array(splits[0].images[:8]), "min_max")


def test_gradients_pass_the_rounding_and_stop_at_the_clipping(
    network: Network, splits: Splits
) -> None:
    model, spec = copy.deepcopy(network[0]), network[1]
    images = np.array(splits[0].images[:64])
    simulated = simulate_int8(model, spec, images, "min_max").train()
    x = normalise(torch.from_numpy(images), spec).requires_grad_()
    simulated(x).logsumexp(1).sum().backward()
    stem = model.backbone.stem[0].weight.grad
    assert stem is not None
    assert (stem.flatten(1).abs().amax(1) > 0).float().mean() > 0.5
    beyond = (x.detach() + 100).requires_grad_()
    simulated(beyond).sum().backward()
    assert beyond.grad is not None
    assert beyond.grad.abs().max() == 0


def test_int8_costs_less_after_it_and_batch_norms_keep_their_statistics(
    coarse: Network, splits: Splits, conf: Params, tmp_path: Path
) -> None:
    (model, spec), (train, params) = coarse, settings(conf, epochs=2, lr=0.02)
    data = spec, splits
    tuned = finetune_int8(model, model, data, train, params, "min_max", tmp_path / "a.pt")
    kept = dict(model.named_buffers())
    assert all(torch.equal(value, kept[name]) for name, value in tuned.named_buffers())
    assert tuned.state_dict().keys() == model.state_dict().keys()
    validation, calibration = splits[1], np.array(splits[0].images[:64])
    wanted = predict(model, validation.images, spec).argmax(1)
    before, after = (
        (int8_logits(one, spec, calibration, validation, tmp_path).argmax(1) != wanted).mean()
        for one in (model, tuned)
    )
    assert before > 0.15
    assert after < 0.5 * before


def int8_logits(
    model: Classifier, spec: ModelSpec, calibration: np.ndarray, split: ShardSplit, folder: Path
) -> np.ndarray:
    export(model, spec, folder / "fp32.onnx")
    graph = prepare(folder / "fp32.onnx")
    int8 = to_int8(graph, ranges(observe(graph, activations(graph), calibration), "min_max"))
    return run_logits(open_session(int8.SerializeToString(), 1), split.images)


def test_killed_it_goes_on_and_ends_with_the_same_weights(
    network: Network, splits: Splits, conf: Params, tmp_path: Path, killed_at: KillAt
) -> None:
    train, params = settings(conf, epochs=2, lr=0.005)

    def run(name: str) -> Classifier:
        data, checkpoint = (network[1], splits), tmp_path / name
        return finetune_int8(network[0], network[0], data, train, params, "mse", checkpoint)

    unbroken = run("unbroken.pt")
    killed_at(1, lambda: run("killed.pt"))
    taken_up = run("killed.pt")
    pairs = zip(unbroken.state_dict().values(), taken_up.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_it_is_off_by_default(
    hostile: Network, trained: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    """The int8 of this network misses the budget: test_quantize has it fine-tuned."""
    context = context_of(hostile, trained, digit_shards, tmp_path)
    assert [one.name for one in candidates(context)] == ["fp32", "fp32-int8"]


def test_int8_that_keeps_the_budget_is_left_as_it_is(
    network: Network, trained: Path, digit_shards: Shards, tmp_path: Path
) -> None:
    context = tuning(context_of(network, trained, digit_shards, tmp_path), 1)
    assert [one.name for one in candidates(context)] == ["fp32", "fp32-int8"]
