"""Training that starts from given weights: what is kept, what is replaced, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tasks.bundle import Bundle
from tasks.data.shards import Shards
from tasks.errors import TrainingError
from tasks.params import Settings
from tasks.schema import Train
from tasks.training.fitting import fitted
from tasks.training.loop import fit
from tasks.training.models import (
    Classifier,
    ModelSpec,
    build,
    channel_moments,
    save_model,
    spec_for,
)
from tasks.training.train import run_key
from tasks.training.trainer import Trainer
from tasks.training.weights import weights_digest

Config = Callable[..., Train]
MOMENTS = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def make_spec(architecture: str = "resnet_small", size: int = 16, **values: object) -> ModelSpec:
    return ModelSpec(
        **{
            "architecture": architecture,
            "width": 8,
            "depth": 1,
            "classes": ("a", "b", "c"),
            "size": size,
            "mean": MOMENTS[0],
            "std": MOMENTS[1],
            **values,
        }
    )


def saved(folder: Path, spec: ModelSpec) -> Classifier:
    torch.manual_seed(1)
    model = build(spec)
    save_model(folder, model, spec)
    return model


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_model_directory_gives_all_its_weights_for_the_same_classes(tmp_path: Path):
    model = saved(tmp_path, make_spec())
    assert same(build(make_spec(), str(tmp_path)), model)
    assert same(build(make_spec(), str(tmp_path / "model.safetensors")), model)


def test_other_classes_get_a_new_head_and_keep_the_backbone(tmp_path: Path):
    model = saved(tmp_path, make_spec())
    for classes in (("a", "b"), ("c", "b", "a")):  # another order is other classes
        started = build(make_spec(classes=classes), str(tmp_path))
        assert same(started.backbone, model.backbone)
        assert started.head.weight.shape[0] == len(classes)
        assert not torch.equal(started.head.weight[:2], model.head.weight[:2])


def test_a_network_that_does_not_fit_is_named_with_the_one_that_does(tmp_path: Path):
    saved(tmp_path, make_spec(width=4))
    with pytest.raises(TrainingError) as raised:
        build(make_spec(), str(tmp_path))
    message = str(raised.value)
    assert "does not fit resnet_small of width 8 and depth 1" in message
    assert "backbone.stem.0.weight is 4×3×3×3 instead of 8×3×3×3" in message
    assert "resnet_small of width 4 and depth 1" in message


def test_images_are_normalised_as_the_weights_expect(
    tmp_path: Path, shards: Shards, config: Config
):
    saved(tmp_path, make_spec())
    own = channel_moments(shards.split("train").images)
    spec = spec_for(shards, config(weights=str(tmp_path)), own)
    assert (spec.mean, spec.std) == MOMENTS
    spec = spec_for(shards, config(architecture="resnet18", weights="imagenet"), own)
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec_for(shards, config(), own).mean == own[0]


def test_a_checkpoint_gives_the_best_weights_of_its_run(
    tmp_path: Path, shards: Shards, spec: ModelSpec, config: Config
):
    model, path = build(spec), tmp_path / "checkpoint.pt"
    splits = shards.split("train"), shards.split("validation")
    fit(model, *splits, spec, config(epochs=2), checkpoint=path)
    assert same(build(spec, str(path)), model)
    assert spec_for(shards, config(weights=str(path)), MOMENTS).mean == spec.mean


def test_a_checkpoint_within_the_first_epoch_has_no_weights_to_start_from(
    tmp_path: Path, shards: Shards, spec: ModelSpec, config: Config, monkeypatch: pytest.MonkeyPatch
):
    """As a run leaves it that is killed before it has validated once."""
    path, settings = tmp_path / "checkpoint.pt", config(epochs=1, checkpoint_seconds=0.001)
    monkeypatch.setattr(Trainer, "_end", _cut_off)
    splits = shards.split("train"), shards.split("validation")
    with pytest.raises(KeyboardInterrupt):
        fit(build(spec), *splits, spec, settings, checkpoint=path)
    with pytest.raises(TrainingError, match="stopped within its first epoch"):
        build(spec, str(path))


def _cut_off(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_bundle_leads_to_its_runs_checkpoint(
    tmp_path: Path,
    digits_bundle: Bundle,
    settings: Settings,
    shards: Shards,
    spec: ModelSpec,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("VISIONLOOP_HOME", str(settings.home))
    with pytest.raises(TrainingError, match=r"dvc get \. data/model --rev COMMIT"):
        build(spec, str(digits_bundle.path))
    model = build(spec)
    path = settings.home / "checkpoints" / digits_bundle.info.lineage.run_key / "checkpoint.pt"
    splits = shards.split("train"), shards.split("validation")
    fit(model, *splits, spec, config(epochs=1), checkpoint=path)
    assert same(build(spec, str(digits_bundle.path)), model)


@pytest.mark.parametrize("wrapped", [False, True])
def test_torchvisions_names_are_understood(tmp_path: Path, wrapped: bool):
    import torchvision

    network = torchvision.models.mobilenet_v3_small(weights=None)
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    spec = make_spec("mobilenet_v3_small", 64)
    model = build(spec, str(tmp_path / "net.pth")).eval()
    network.classifier[3] = torch.nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.embed(x), network.eval()(x))
    assert model.head.weight.shape[0] == 3


@pytest.mark.parametrize("architecture", ["resnet18", "convnext_tiny", "vit_b_32"])
def test_weights_of_large_images_fit_small_ones(architecture: str, tmp_path: Path):
    """A file of torchvision's, for 224 pixels, starts a network for 32."""
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(architecture, weights=None)
    torch.save(network.state_dict(), tmp_path / "large.pth")
    model = build(make_spec(architecture, 32), str(tmp_path / "large.pth"))
    given = network.state_dict()
    for name, tensor in model.backbone.state_dict().items():
        if tensor.shape == given[name].shape:
            assert torch.equal(tensor, given[name]), name
    assert model(torch.zeros(2, 3, 32, 32)).isfinite().all()


def test_filters_are_cropped_or_padded_around_their_middle():
    filters = torch.randn(4, 3, 7, 7)
    small = fitted(filters, torch.empty(4, 3, 3, 3))
    assert torch.equal(small, filters[:, :, 2:5, 2:5])
    assert torch.equal(fitted(small, filters)[:, :, 2:5, 2:5], small)
    assert fitted(small, filters).count_nonzero() == small.count_nonzero()


def test_patches_see_in_an_enlarged_image_what_they_saw_in_the_small_one():
    """FlexiViT's criterion: filters of a larger patch answer as the old ones did."""
    filters = torch.randn(5, 3, 4, 4)
    large = fitted(filters, torch.empty(5, 3, 8, 8))
    patch = torch.randn(1, 3, 4, 4)
    wide = torch.nn.functional.interpolate(patch, size=(8, 8), mode="bilinear", antialias=True)
    expected = torch.einsum("oihw,nihw->no", filters, patch)
    torch.testing.assert_close(torch.einsum("oihw,nihw->no", large, wide), expected)


def test_position_embeddings_keep_the_class_token_and_the_layout():
    row = torch.arange(8.0).view(1, 1, 8).expand(8, 8, 8) + torch.arange(8.0).view(8, 1, 1)
    embedding = torch.cat([torch.full((1, 1, 8), 99.0), row.reshape(1, 64, 8)], dim=1)
    small = fitted(embedding, torch.empty(1, 17, 8))
    assert torch.equal(small[:, 0], embedding[:, 0])
    means = small[0, 1:].reshape(4, 4, 8).mean((1, 2))
    assert means.diff().min() > 1.5  # rows still rise, two of the old a step


def test_imagenet_weights_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(TrainingError) as raised:
        build(make_spec("resnet18", 32), "imagenet")
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in str(raised.value)
    assert "train.weights" in str(raised.value)
    with pytest.raises(TrainingError, match="resnet_small has no imagenet weights"):
        build(make_spec(), "imagenet")


@pytest.mark.parametrize("name", ["missing", "missing.safetensors", "text.pth", "text.safetensors"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str):
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "text.safetensors").write_text("weights")
    with pytest.raises(TrainingError, match=f"train.weights: {tmp_path / name} "):
        build(make_spec(), str(tmp_path / name))


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path):
    torch.save({"state_dict": {}, "hook": print}, tmp_path / "bad.pth")
    with pytest.raises(TrainingError, match=r"neither a checkpoint nor what torch\.save writes"):
        build(make_spec(), str(tmp_path / "bad.pth"))


def test_other_contents_of_the_same_path_are_another_run(
    tmp_path: Path, shards: Shards, config: Config
):
    settings = config(weights=str(tmp_path))
    saved(tmp_path, make_spec())
    first = run_key(settings, shards), weights_digest(str(tmp_path))
    assert (run_key(settings, shards), weights_digest(str(tmp_path))) == first
    save_model(tmp_path, build(make_spec()), make_spec())
    assert run_key(settings, shards) != first[0]
    assert json.loads((tmp_path / "model.json").read_text())["width"] == 8
    assert (weights_digest(None), weights_digest("imagenet")) == (None, None)
