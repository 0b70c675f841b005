"""Names, order and classes; that the same weights compute the same is in the tests of each detector."""

import re

import pytest
import torch
from torchvision.models import get_model
from torchvision_pair import read_config

from ssodkit.detectors.base import DetectorConfig
from ssodkit.detectors.starting import misfit
from ssodkit.detectors.torchvision_weights import KNOWN, coco_names, from_torchvision, plain_name, promised, weights_of
from ssodkit.plugins import members

OLDER = {
    r"(inner_blocks|layer_blocks)\.(\d)\.0\.": r"\1.\2.",
    r"rpn\.head\.conv\.0\.0\.": "rpn.head.conv.",
}
"""What torchvision's files of earlier versions are called otherwise: now -> then."""


def older(name: str, kind: str) -> str:
    for now, then in OLDER.items():
        name = re.sub(now, then, name)
    if kind.startswith("retinanet"):
        name = re.sub(r"_head\.conv\.(\d)\.0\.", lambda found: f"_head.conv.{2 * int(found[1])}.", name)
    return name


def theirs(kind: str, classes: int = 91, device: str = "meta"):
    with torch.device(device):
        return get_model(kind, weights=None, weights_backbone=None, num_classes=classes)


@pytest.mark.parametrize("kind", KNOWN)
def test_known__each_preset_has_the_layers_of_its_network_and_of_no_other(kind):
    for other, known in KNOWN.items():
        plain = read_config(known.preset, [])
        config = members(DetectorConfig.slot)[plain["type"]].model_validate(plain)
        assert (misfit(promised(kind), config) is None) == (other == kind)


@pytest.mark.parametrize("kind", KNOWN)
def test_from_torchvision__takes_files_of_earlier_versions(kind):
    state = theirs(kind).state_dict()
    now = from_torchvision(state, "now").tensors
    then = from_torchvision({older(name, kind): tensor for name, tensor in state.items()}, "then").tensors
    assert list(now) == list(then)
    assert all(now[name].shape == then[name].shape for name in now)


@pytest.mark.parametrize("kind", KNOWN)
def test_from_torchvision__files_with_cocos_number_of_classes_are_cocos(kind):
    whole, few = promised(kind), from_torchvision(theirs(kind, 5).state_dict(), "few")
    assert whole.names == coco_names()[-whole.count :]
    assert whole.names[17 - (whole.count == 90)] == "cat"  # COCO's number 17
    assert (few.count, few.names) == (4 if kind.startswith("faster") else 5, None)


def test_from_torchvision__puts_the_background_behind_the_classes():
    state = theirs("fasterrcnn_resnet50_fpn", 3, "cpu").state_dict()
    made = from_torchvision(state, "some").tensors
    logits, codes = (state[f"roi_heads.box_predictor.{name}.weight"] for name in ("cls_score", "bbox_pred"))
    assert torch.equal(made["roi.classify.weight"], logits[[1, 2, 0]])
    assert torch.equal(made["roi.regress.weight"], codes[4:])


def test_plain_name__takes_torchvisions_names_of_weights():
    assert plain_name("FasterRCNN_ResNet50_FPN_Weights.COCO_V1") == "fasterrcnn_resnet50_fpn"
    assert plain_name("FCOS_ResNet50_FPN_Weights.DEFAULT") == "fcos_resnet50_fpn"
    assert plain_name("Runs/Mine") == "Runs/Mine"
    assert all(plain_name(f"{type(weights_of(name)).__name__}.COCO_V1") == name for name in KNOWN)
