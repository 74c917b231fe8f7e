"""Taylor importance: the sizes of the gradients, where the gradients themselves cancel."""

import copy
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from tasks.compression.importance import measure_of
from tasks.data.shards import Shards
from tasks.training.loop import predict
from tasks.training.models import Classifier, ModelSpec, normalise


def test_taylor_sees_gradients_that_cancel_over_all_images(
    network: tuple[Classifier, ModelSpec], digit_shards: Shards
) -> None:
    """As those of a trained network nearly do: one image is of every class, each as likely."""
    model, spec = copy.deepcopy(network[0]).eval(), network[1]
    train = digit_shards.split("train")
    images = np.repeat(train.images[:1], len(train), 0)
    labels = np.arange(len(train)) % len(spec.classes)
    with torch.no_grad():
        model.head.bias -= torch.from_numpy(predict(model, images[:1], spec))[0]
    weight = model.backbone.blocks[1].conv1.weight
    loss = F.cross_entropy(model(normalise(torch.from_numpy(images), spec)), torch.tensor(labels))
    (cancelled,) = torch.autograd.grad(loss, [weight])

    measure_of("taylor", model, spec, replace(train, images=images, labels=labels), seed=0)
    assert weight.grad.abs().mean() > 1e3 * cancelled.abs().mean()
    assert (weight.grad >= 0).all()
