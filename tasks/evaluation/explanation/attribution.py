"""Attribution maps through captum: how much each pixel speaks for a class.

Every method takes one image and gives a map S×S, positive where a pixel speaks for the class and
negative where it speaks against it. What stands for "not there" is the mean colour.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tasks.evaluation.pixel_networks import PixelClassifier
from tasks.metrics.classification import Floats
from tasks.schema import Attribution

Logits = Callable[[Tensor], Tensor]  # float N×3×S×S in 0..255 → N×C
GRADIENT: tuple[Attribution, ...] = ("grad_cam", "integrated_gradients", "shap")
STEPS = 24  # along the path of integrated gradients, and draws of gradient SHAP
PATCHES = 7  # a side, that LIME takes away and occlusion slides over
SAMPLES = 160  # of LIME, for 49 patches


@dataclass(frozen=True)
class Explained:
    """A network to explain; `stage` is where Grad-CAM looks, None where there is none."""

    logits: Logits
    stage: nn.Module | None = None


@dataclass(frozen=True)
class Absence:
    """What stands for an image without its content."""

    colour: Tensor
    """The mean of the training images, float 1×3×1×1."""
    background: Tensor
    """Training images, float K×3×S×S, as gradient SHAP draws them."""


def attribution(
    method: Attribution, network: Explained, image: Tensor, target: int, absence: Absence, seed: int
) -> Floats:
    """The map float64 S×S of float 1×3×S×S in 0..255 for the logit of class `target`.

    Grad-CAM (Selvaraju et al. 2017), integrated gradients (Sundararajan et al. 2017), gradient
    SHAP (Lundberg & Lee 2017), LIME (Ribeiro et al. 2016), occlusion (Zeiler & Fergus 2014).
    """
    with drawn_from(seed):
        return _METHODS[method](network, image, target, absence)


def last_stage(network: PixelClassifier) -> nn.Module | None:
    """What makes the last feature map of more than a pixel; None in a vision transformer.

    Modules run inside out, so it is a whole stage and not the convolution that ends it.
    """
    if network.spec.architecture.startswith("vit"):
        return None
    stages: list[nn.Module] = []

    def seen(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1:
            stages.append(module)

    hooks = [module.register_forward_hook(seen) for module in network.model.backbone.modules()]
    with torch.inference_mode():
        network(torch.zeros(1, 3, network.spec.size, network.spec.size))
    for hook in hooks:
        hook.remove()
    return stages[-1] if stages else None


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Captum draws from the global random states, which are afterwards what they were.

    It also warns that it asks for gradients.
    """
    numpy = np.random.get_state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(numpy)


def _grad_cam(network: Explained, image: Tensor, target: int, absence: Absence) -> Floats:
    from captum.attr import LayerAttribution, LayerGradCam

    if network.stage is None:
        raise ValueError("Grad-CAM needs a stage of convolutions")
    method = LayerGradCam(network.logits, network.stage)
    coarse = method.attribute(image, target=target, relu_attributions=True)
    size = (image.shape[2], image.shape[3])
    return _map(LayerAttribution.interpolate(coarse, size, "bilinear"))


def _integrated_gradients(
    network: Explained, image: Tensor, target: int, absence: Absence
) -> Floats:
    from captum.attr import IntegratedGradients

    method = IntegratedGradients(network.logits)
    baseline = absence.colour.expand_as(image)
    return _map(method.attribute(image, baselines=baseline, target=target, n_steps=STEPS))


def _shap(network: Explained, image: Tensor, target: int, absence: Absence) -> Floats:
    from captum.attr import GradientShap

    method = GradientShap(network.logits)
    return _map(
        method.attribute(image, baselines=absence.background, n_samples=STEPS, target=target)
    )


def _lime(network: Explained, image: Tensor, target: int, absence: Absence) -> Floats:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    side = image.shape[2]
    cell = torch.arange(side) * PATCHES // side
    patches = (cell[:, None] * PATCHES + cell[None, :]).expand(1, 3, side, side)
    method = Lime(network.logits, interpretable_model=SkLearnRidge(alpha=1.0))
    found = method.attribute(
        image,
        baselines=absence.colour.expand_as(image),
        target=target,
        feature_mask=torch.unique(patches, return_inverse=True)[1],  # fewer than 7 pixels a side
        n_samples=SAMPLES,
        perturbations_per_eval=SAMPLES // 4,
    )
    return _map(found)


def _occlusion(network: Explained, image: Tensor, target: int, absence: Absence) -> Floats:
    from captum.attr import Occlusion

    side = image.shape[2]
    stride = math.ceil(side / (PATCHES + 1))  # windows overlap by half: 7 of them a side
    found = Occlusion(network.logits).attribute(
        image,
        sliding_window_shapes=(3, 2 * stride, 2 * stride),
        strides=(3, stride, stride),
        baselines=absence.colour.expand_as(image),
        target=target,
        perturbations_per_eval=PATCHES**2,
    )
    return _map(found)


def _map(found: Tensor) -> Floats:
    return np.asarray(found.detach()[0].sum(0), np.float64)


_METHODS: dict[Attribution, Callable[[Explained, Tensor, int, Absence], Floats]] = {
    "grad_cam": _grad_cam,
    "integrated_gradients": _integrated_gradients,
    "shap": _shap,
    "lime": _lime,
    "occlusion": _occlusion,
}
