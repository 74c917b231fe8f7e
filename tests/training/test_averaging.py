import torch
from torch import nn

from tasks.training.averaging import WeightAverage


def moving(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)


def test_it_is_the_weighted_mean_of_weights_and_batch_norms():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    moving(model, 0)
    average, expected = WeightAverage(model, 0.5), 0.0
    for step, value in enumerate([4.0, 8.0, -2.0, 6.0, 1.0, 3.0, 5.0, 7.0, 9.0, 2.0], 1):
        moving(model, value)
        average.update(model)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    state = average.module.state_dict()
    for name in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        assert torch.allclose(state[name], torch.tensor(expected)), name
    assert state["1.num_batches_tracked"] == 2  # the last count
    assert not any(weight.requires_grad for weight in average.module.parameters())


def test_the_network_itself_is_left_alone():
    model = nn.Linear(2, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    average = WeightAverage(model, 0.9)
    moving(average.module, 7)
    average.update(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_was_kept_is_taken_up():
    model = nn.Linear(2, 2)
    first, second = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    moving(model, 1)
    first.update(model)
    second.load_state_dict(first.state_dict())
    moving(model, 2)
    first.update(model)
    second.update(model)
    assert torch.equal(first.module.weight, second.module.weight)
