from pathlib import Path

import huggingface_hub.constants
import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.draft.weights import DEFAULT_NETWORK, choose_start

GPU = 24 * 10**9


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of timm's weights -> what puts a network there."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

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
