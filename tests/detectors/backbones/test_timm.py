from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from ssodkit.detectors.backbones.timm import Timm, TimmConfig
from ssodkit.errors import RecipeError, TrainingError

NAME = "resnet10t.c3_in1k"
"""The smallest with batch-norm and four strides."""


def learns(backbone: Timm) -> set[str]:
    """The first part of the names of what learns: conv1, layer1, and so on."""
    return {name.split(".")[0] for name, parameter in backbone.network.named_parameters() if parameter.requires_grad}


def test_timm__has_the_maps_it_says():
    backbone = Timm(TimmConfig(name=NAME), load_weights=False)
    assert backbone.strides == (4, 8, 16, 32)
    for level, stride, width in zip(
        backbone(torch.zeros(1, 3, 64, 64)), (4, 8, 16, 32), backbone.channels, strict=True
    ):
        assert level.shape == (1, width, 64 // stride, 64 // stride)


def test_timm__computes_no_further_than_its_last_stride():
    backbone = Timm(TimmConfig(name=NAME, strides=(4, 8)), load_weights=False)
    assert not hasattr(backbone.network, "layer4")


def test_timm__normalizes_like_the_weights_of_its_name():
    backbone = Timm(TimmConfig(), load_weights=False)
    torch.testing.assert_close(backbone.mean, torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(backbone.std, torch.tensor([0.229, 0.224, 0.225]))


@pytest.mark.parametrize(
    ("frozen_stages", "expected"),
    [
        (0, {"conv1", "layer1", "layer2", "layer3", "layer4"}),
        (1, {"layer2", "layer3", "layer4"}),
        (2, {"layer3", "layer4"}),
    ],
)
def test_timm__freezes_stages_from_the_input(frozen_stages: int, expected: set[str]):
    assert learns(Timm(TimmConfig(name=NAME, frozen_stages=frozen_stages), load_weights=False)) == expected


def test_timm__counts_frozen_stages_in_the_network_not_among_the_maps():
    backbone = Timm(TimmConfig(name=NAME, strides=(8, 16, 32), frozen_stages=1), load_weights=False)
    assert learns(backbone) == {"layer2", "layer3", "layer4"}


def test_timm__affine_batch_norm_learns_scale_and_offset_but_keeps_its_statistics():
    backbone = Timm(TimmConfig(name=NAME, batch_norm="affine"), load_weights=False).train()
    norm = backbone.network.layer2[0].bn2  # the last of its block: the others begin behind a scale of 0
    before = norm.running_mean.clone()
    sum(level.sum() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert torch.equal(norm.running_mean, before)
    assert norm.weight.grad.abs().max() > 0.0
    assert norm.bias.grad.abs().max() > 0.0
    assert not backbone.network.layer1[0].bn1.weight.requires_grad


def test_timm__frozen_batch_norm_does_not_change_in_train_mode():
    backbone = Timm(TimmConfig(name=NAME), load_weights=False).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items() if "running" in name}
    sum(level.sum() for level in backbone(torch.randn(2, 3, 64, 64))).backward()
    after = backbone.state_dict()
    assert before
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    norm = backbone.network.layer2[0].bn1
    assert norm.weight.grad is None
    assert backbone.network.layer2[0].conv1.weight.grad is not None


def test_timm__batch_norm_that_trains_is_still_frozen_in_frozen_stages():
    backbone = Timm(TimmConfig(name=NAME, batch_norm="train"), load_weights=False).train()
    assert not backbone.network.layer1[0].bn1.training
    assert backbone.network.layer2[0].bn1.training
    assert backbone.network.layer2[0].bn1.weight.requires_grad


def test_timm__reads_a_safetensors_file(tmp_path: Path):
    torch.manual_seed(1)
    whole = timm.create_model(NAME, pretrained=False)
    save_file(whole.state_dict(), tmp_path / "weights.safetensors")
    backbone = Timm(TimmConfig(name=NAME, weights=tmp_path / "weights.safetensors"), load_weights=True)
    expected = whole.layer3[0].conv1.weight
    assert torch.equal(backbone.network.layer3[0].conv1.weight, expected)
    without = Timm(TimmConfig(name=NAME, weights=tmp_path / "absent.safetensors"), load_weights=False)
    assert not torch.equal(without.network.layer3[0].conv1.weight, expected)


def test_timm__says_what_to_do_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """At once: the host is asked a single time, where asking for the weights repeats itself for a minute."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    hint = r"Run once online, .* give the file as `detector\.backbone\.weights`; or take a detector .*faster_rcnn_light"
    with pytest.raises(TrainingError, match=rf"there is no network, and timm keeps no copy.*{hint}"):
        Timm(TimmConfig(), load_weights=True)


@pytest.mark.parametrize("content", [None, b"no weights"])
def test_timm__says_what_is_wrong_with_a_file(tmp_path: Path, content: bytes | None):
    path = tmp_path / "weights.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=f"The weights of {NAME} cannot be read"):
        Timm(TimmConfig(name=NAME, weights=path), load_weights=True)


def test_timm__refuses_files_of_another_kind():
    with pytest.raises(ValidationError, match=r"weights\.pth is no \.safetensors file"):
        TimmConfig(weights=Path("weights.pth"))


def test_timm__refuses_weights_of_another_network(tmp_path: Path):
    save_file(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(TrainingError, match=r"lacks conv1\.0\.weight and"):
        Timm(TimmConfig(name=NAME, weights=tmp_path / "other.safetensors"), load_weights=True)


def test_timm__reads_a_file_without_classifier(tmp_path: Path):
    save_file(timm.create_model(NAME, num_classes=0).state_dict(), tmp_path / "weights.safetensors")
    Timm(TimmConfig(name=NAME, weights=tmp_path / "weights.safetensors"), load_weights=True)


def test_timm__refuses_unknown_names_strides_and_stages():
    with pytest.raises(RecipeError, match=r"timm gives no feature maps of 'resnet49': Unknown model"):
        Timm(TimmConfig(name="resnet49"), load_weights=False)
    with pytest.raises(RecipeError, match="has no map of stride 64, but of 2, 4, 8, 16, 32"):
        Timm(TimmConfig(name=NAME, strides=(4, 64)), load_weights=False)
    with pytest.raises(RecipeError, match=r"frozen_stages: .* has 4 stages"):
        Timm(TimmConfig(name=NAME, frozen_stages=5), load_weights=False)


def test_timm__refuses_tags_and_networks_without_maps():
    with pytest.raises(RecipeError, match="Invalid pretrained tag"):
        Timm(TimmConfig(name="resnet10t.nobody"), load_weights=False)
    with pytest.raises(RecipeError, match="has no map of stride 4, but of 16, 16, 16"):
        Timm(TimmConfig(name="vit_tiny_patch16_224"), load_weights=False)


def test_timm__gives_channels_first_whatever_the_network_does():
    backbone = Timm(TimmConfig(name="mambaout_femto", strides=(4, 8)), load_weights=False)
    maps = backbone(torch.zeros(1, 3, 64, 32))
    assert [level.shape[1:] for level in maps] == [
        (width, 64 // s, 32 // s) for width, s in zip(backbone.channels, (4, 8), strict=True)
    ]


@pytest.mark.parametrize("name", ["convnext_atto", "efficientnet_lite0", "regnety_002"])
def test_timm__freezes_other_families_too(name: str):
    backbone = Timm(TimmConfig(name=name, frozen_stages=2), load_weights=False)
    flags = [parameter.requires_grad for parameter in backbone.network.parameters()]
    assert not flags[0]
    kinds = [name for name, parameter in backbone.network.named_parameters() if parameter.requires_grad]
    assert kinds
    maps = backbone(torch.randn(1, 3, 64, 64))
    assert not maps[1].requires_grad
    assert maps[2].requires_grad


def test_timm__knows_whether_it_is_pretrained_and_freezes():
    assert TimmConfig().is_pretrained
    assert TimmConfig(weights=Path("some.safetensors")).is_pretrained
    assert not TimmConfig(weights="random").is_pretrained
    assert TimmConfig().freezes
    assert TimmConfig(frozen_stages=0, batch_norm="affine").freezes
    assert not TimmConfig(weights="random", frozen_stages=0, batch_norm="train").freezes
