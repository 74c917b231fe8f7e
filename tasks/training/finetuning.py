"""The stages of every architecture, from the input on, and what fine-tuning does with them.

Freezing (to a linear probe at most), freeing them again from the last (Howard & Ruder 2018),
rates that fall towards the input (Clark et al. 2020, Bao et al. 2022), kept batch-norm
statistics. What holds in an epoch follows from its number alone, so a run that is taken up
goes on as it was.
"""

from itertools import groupby
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tasks.errors import TrainingError
from tasks.schema import Finetune, Train
from tasks.training.residual import STAGES, ResNetSmall

ALL = "all"


class Stage(NamedTuple):
    """A name ("stem", "stage1", …) and the parts of the backbone that it is made of."""

    name: str
    parts: list[nn.Module | nn.Parameter]


def stages(model: nn.Module) -> list[Stage]:
    """The stages of a Classifier's backbone from the input on: each of its parameters in one."""
    network: Any = model.backbone
    if isinstance(network, ResNetSmall):
        parts = _residual_stages(network)
    else:  # by name: to import torchvision takes seconds, and only its own networks need it
        parts = _STAGES[type(network).__name__](network)
    names = ["stem", *(f"stage{number}" for number in range(1, len(parts)))]
    return [Stage(name, part) for name, part in zip(names, parts, strict=True)]


def start_training(model: nn.Module, finetune: Finetune, epoch: int) -> None:
    """Bring `model` into training mode for an epoch (from 1), but for what is frozen in it.

    A frozen stage takes no gradient, and keeps its batch-norm statistics. Raises TrainingError
    for a stage that the architecture does not have.
    """
    model.train()
    if not finetune.frozen:
        return
    found = stages(model)
    last = _frozen_stages(found, finetune, epoch)
    for number, stage in enumerate(found):
        for part in stage.parts:
            part.requires_grad_(number >= last)
            if isinstance(part, nn.Module) and number < last:
                part.eval()
    if finetune.freeze_norm:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()


def parameter_groups(model: nn.Module, config: Train) -> list[dict[str, Any]]:
    """All parameters by learning rate and weight decay, for an optimizer; the head's come first.

    Only weight matrices and filters decay: biases, norms, layer scales, class tokens and position
    embeddings do not (He et al. 2019, "Bag of tricks"). The frozen are there too, and are left
    alone for as long as they take no gradient.
    """
    rates = _rates(model, config)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decayed = parameter.ndim > 1 and name.endswith("weight")
        rate = rates.get(id(parameter), config.lr)
        groups.setdefault((rate, decayed), []).append(parameter)
    order = sorted(groups, key=lambda key: (-key[0], not key[1]))
    return [
        {"params": groups[key], "lr": key[0], "weight_decay": config.weight_decay * key[1]}
        for key in order
    ]


def whole(train: Train) -> Train:
    """The train section with nothing frozen, one learning rate for all and no weights given."""
    free = Finetune(freeze=0, unfreeze_every=0, layer_decay=1.0, freeze_norm=False)
    return train.model_copy(update={"finetune": free, "weights": None})


def _rates(model: nn.Module, config: Train) -> dict[int, float]:
    """The rate of every parameter of the backbone, by its id; none where all learn at one."""
    decay = config.finetune.layer_decay
    if decay == 1:
        return {}
    rates = {}
    for distance, stage in enumerate(reversed(stages(model)), 1):
        for part in stage.parts:
            own = part.parameters() if isinstance(part, nn.Module) else [part]
            rates.update({id(parameter): config.lr * decay**distance for parameter in own})
    return rates


def _frozen_stages(found: list[Stage], finetune: Finetune, epoch: int) -> int:
    """How many stages, from the input, are frozen in this epoch."""
    names = [stage.name for stage in found]
    freeze = finetune.freeze
    if freeze == ALL:
        freeze = len(names)
    elif isinstance(freeze, str) and freeze in names:
        freeze = names.index(freeze) + 1
    if isinstance(freeze, str) or freeze > len(names):
        raise TrainingError(
            f"train.finetune.freeze {freeze} is not a stage of this architecture; give 0 to "
            f"{len(names)}, {ALL}, or one of {', '.join(names)}"
        )
    freed = (epoch - 1) // finetune.unfreeze_every if finetune.unfreeze_every else 0
    return max(0, freeze - freed)


def _residual_stages(network: ResNetSmall) -> list[list[Any]]:
    depth = len(network.blocks) // STAGES
    blocks = list(network.blocks)
    return [[network.stem], *(blocks[i * depth : (i + 1) * depth] for i in range(STAGES))]


def _resnet_stages(network: Any) -> list[list[Any]]:
    layers = (network.layer1, network.layer2, network.layer3, network.layer4)
    return [[network.conv1, network.bn1], *([layer] for layer in layers)]


def _mobilenet_stages(network: Any) -> list[list[Any]]:
    """Blocks of one width are a stage; so is the last convolution, with the layers after it."""
    stem, *blocks, last = network.features
    middle = groupby(blocks, key=lambda block: block.out_channels)
    return [[stem], *(list(stage) for _, stage in middle), [last, network.classifier]]


def _efficientnet_stages(network: Any) -> list[list[Any]]:
    return [[stage] for stage in network.features]


def _convnext_stages(network: Any) -> list[list[Any]]:
    """A stage has the halving before it; the last has the norm after the pooling."""
    stem, first, *rest = network.features
    pairs = [list(pair) for pair in zip(rest[::2], rest[1::2], strict=True)]
    return [[stem], [first], *pairs[:-1], [*pairs[-1], network.classifier]]


def _transformer_stages(network: Any) -> list[list[Any]]:
    """A layer of the encoder is a stage; the last has the norm after it."""
    stem = [network.conv_proj, network.class_token, network.encoder.pos_embedding]
    *layers, last = network.encoder.layers
    return [stem, *([layer] for layer in layers), [last, network.encoder.ln]]


_STAGES = {
    "ResNet": _resnet_stages,
    "MobileNetV2": _mobilenet_stages,
    "MobileNetV3": _mobilenet_stages,
    "EfficientNet": _efficientnet_stages,
    "ConvNeXt": _convnext_stages,
    "VisionTransformer": _transformer_stages,
}
