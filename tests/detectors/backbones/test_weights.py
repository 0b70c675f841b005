import pytest
import timm
from safetensors.torch import save_file

from ssodkit.detectors.backbones.weights import network_of
from ssodkit.errors import RecipeError

NAME = "test_resnet"


@pytest.fixture
def state():
    return timm.create_model(NAME).state_dict()


@pytest.mark.parametrize(
    "path",
    [
        f"{NAME}.safetensors",
        f"{NAME}/model.safetensors",
        f"models--timm--{NAME}.r160_in1k/snapshots/0/model.safetensors",
    ],
)
def test_network_of__the_file_or_its_folder_is_called_after_it(path, state, tmp_path):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, tmp_path / path)
    assert network_of(tmp_path / path, "resnet18").split(".")[0] == NAME


def test_network_of__a_file_that_says_nothing_is_the_usual_network_or_none(state, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(state, file)
    assert network_of(file, NAME) == NAME
    with pytest.raises(RecipeError, match=r"lacks .* weights of resnet18\. Call the file after its network"):
        network_of(file, "resnet18")


def test_network_of__a_file_must_keep_what_its_name_promises(state, tmp_path):
    save_file({**state, "conv1.0.weight": state["conv1.0.weight"][:1].clone()}, tmp_path / f"{NAME}.safetensors")
    with pytest.raises(RecipeError, match=r"other shapes: conv1\.0\.weight is \(1, .* weights of test_resnet\.$"):
        network_of(tmp_path / f"{NAME}.safetensors", NAME)
    (tmp_path / "resnet18.safetensors").write_bytes(b"no weights")
    with pytest.raises(RecipeError, match=r"resnet18\.safetensors cannot be read"):
        network_of(tmp_path / "resnet18.safetensors", NAME)
