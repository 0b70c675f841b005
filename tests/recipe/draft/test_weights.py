from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from ssodkit.detectors.torchvision_weights import weights_of
from ssodkit.errors import RecipeError
from ssodkit.recipe.draft.weights import DEFAULT_NETWORK, choose_start

GPU = 24 * 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of timm's weights, and of torch's -> what puts a network there."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))

    def keep(name):
        folder = tmp_path / f"models--timm--{name}"
        for file, text in {"refs/main": "0", "snapshots/0/model.safetensors": ""}.items():
            path = folder / file
            path.parent.mkdir(parents=True)
            path.write_text(text)

    return keep


def test_choose_start__auto_wants_a_gpu_and_weights_that_are_there(cache):
    cache(DEFAULT_NETWORK)
    with_gpu, without = choose_start("auto", GPU), choose_start("auto", None)
    assert (with_gpu.network, with_gpu.gpu, without.network) == (DEFAULT_NETWORK, GPU, None)
    assert with_gpu.describe() == (
        "of resnet50.tv_in1k, as there is a GPU and timm keeps them; --weights none takes new ones"
    )
    assert without.describe() == (
        "new, as there is no GPU; --weights resnet50.tv_in1k takes a larger network with ImageNet's"
    )


def test_choose_start__auto_fetches_nothing(cache):
    start = choose_start("auto", GPU)
    assert start.network is None
    assert "--weights resnet50.tv_in1k fetches them" in start.reason


def keep_in_torch(folder, name):
    """An empty file in the place of a detector's weights."""
    path = folder / "checkpoints" / weights_of(name).url.rpartition("/")[2]
    path.parent.mkdir(exist_ok=True)
    path.touch()


def test_choose_start__auto_prefers_a_detector_that_torch_keeps(cache, tmp_path):
    cache(DEFAULT_NETWORK)
    for name in ("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2"):  # the second version is the better one
        keep_in_torch(tmp_path, name)
        start = choose_start("auto", GPU)
        assert (start.detector, start.network, start.is_new) == (name, None, False)
    assert choose_start("auto", None).is_new
    assert start.describe() == (
        "of fasterrcnn_resnet50_fpn_v2, trained on COCO, as there is a GPU and torch keeps them; "
        "--weights none takes new ones"
    )


def test_choose_start__a_detector_of_torchvision_by_its_name_or_file(cache, tmp_path):
    asked = choose_start("FasterRCNN_ResNet50_FPN_Weights.COCO_V1", None)
    assert asked.describe() == "of fasterrcnn_resnet50_fpn, as --weights says; torch fetches them"
    keep_in_torch(tmp_path, "fasterrcnn_resnet50_fpn")
    assert choose_start("fasterrcnn_resnet50_fpn", None).reason.endswith("torch keeps them")
    state = get_model("fasterrcnn_resnet50_fpn_v2", weights=None, weights_backbone=None, num_classes=2).state_dict()
    state = {name: tensor[:0].clone() for name, tensor in state.items() if tensor.dim()}  # names are enough here
    torch.save(state, tmp_path / "own.pth")
    save_file(state, tmp_path / "own.safetensors")
    for file in (tmp_path / "own.pth", tmp_path / "own.safetensors"):
        start = choose_start(str(file), None)
        assert (start.detector, start.file, start.network) == ("fasterrcnn_resnet50_fpn_v2", file, None)
    torch.save({"backbone.body.conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        RecipeError, match=r"other.pth: it holds the weights of retinanet_resnet50_fpn, and what is wri"
    ):
        choose_start(str(tmp_path / "other.pth"), None)


def test_choose_start__none_are_new_ones_even_with_a_gpu(cache):
    cache(DEFAULT_NETWORK)
    assert choose_start("none", GPU).describe() == "new, as --weights says"


def test_choose_start__a_name_says_whether_timm_must_fetch(cache):
    cache("resnet10t.c3_in1k")
    kept, absent = choose_start("resnet10t", None), choose_start("test_resnet", None)
    assert (kept.network, absent.network) == ("resnet10t.c3_in1k", "test_resnet.r160_in1k")  # with its tag
    assert kept.reason.endswith("timm keeps them")
    assert absent.reason.endswith("timm fetches them")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("resnet5O.tv_in1k", r"timm has no weights of a network 'resnet5O.tv_in1k'; did you mean 'resnet50.tv_in1k'\?"),
        ("none_of_these", r"no weights of a network 'none_of_these'; timm.list_pretrained\(\) lists"),
        ("vit_tiny_patch16_224", "has no map of stride 4"),
        ("nowhere.safetensors", "there is no file nowhere.safetensors"),
        (__file__, r"is no .safetensors file"),
    ],
)
def test_choose_start__what_it_cannot_take_is_a_sentence(asked, sentence):
    with pytest.raises(RecipeError, match=rf"^--weights {Path(asked)}: .*{sentence}"):
        choose_start(asked, None)
