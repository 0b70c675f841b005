"""Weights of torchvision's detectors, in the names and the order that ours have.

Source: torchvision.models.detection, whose files of earlier versions call a few layers otherwise.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ssodkit.detectors.weight_source import Source

TorchvisionName = Literal[
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fcos_resnet50_fpn",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
]


@dataclass(frozen=True)
class _Known:
    """What a network of torchvision is, seen from here."""

    preset: str
    """The base with the same layers and choices."""
    has_epsilon: bool = True
    """Whether the batch-norms of its COCO weights are used with the usual small number beside the variance."""


KNOWN: Mapping[str, _Known] = {
    "fasterrcnn_resnet50_fpn": _Known("faster_rcnn_torchvision", has_epsilon=False),
    "fasterrcnn_resnet50_fpn_v2": _Known("faster_rcnn_torchvision_v2"),
    "fcos_resnet50_fpn": _Known("fcos_torchvision"),
    "retinanet_resnet50_fpn": _Known("retinanet_torchvision", has_epsilon=False),
    "retinanet_resnet50_fpn_v2": _Known("retinanet_torchvision_v2"),
}
"""By their names in torchvision; all have weights of COCO."""
COCO_SLOTS = 91
"""COCO's class numbers up to 90, with gaps, and the background."""
EPSILON = 1e-5
"""Beside the variance, in batch normalization."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels, which torchvision's detectors normalize themselves."""

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A pattern that a whole name matches, and our name."""
_NECK: tuple[Rule, ...] = (
    (r"backbone\.body\.(.+)", r"backbone.network.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?(weight|bias)", r"neck.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?(weight|bias)", r"neck.output.\1.\2"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.1\.(.+)", r"neck.lateral_norms.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.1\.(.+)", r"neck.output_norms.\1.\2"),
    (r"backbone\.fpn\.extra_blocks\.p(\d)\.(.+)", lambda found: f"neck.extra.{int(found[1]) - 6}.{found[2]}"),
)
_REGIONS: tuple[Rule, ...] = (
    (r"rpn\.head\.conv\.(?:0\.0\.)?(weight|bias)", r"rpn.shared.\1"),
    (r"rpn\.head\.conv\.(\d+)\.0\.(.+)", lambda found: f"rpn.further.{int(found[1]) - 1}.{found[2]}"),
    (r"rpn\.head\.cls_logits\.(.+)", r"rpn.objectness.\1"),
    (r"rpn\.head\.bbox_pred\.(.+)", r"rpn.codes.\1"),
    (r"roi_heads\.box_head\.fc6\.(.+)", r"roi.first.\1"),
    (r"roi_heads\.box_head\.fc7\.(.+)", r"roi.second.\1"),
    (r"roi_heads\.box_head\.(\d+)\.0\.(.+)", r"roi.convolutions.\1.\2"),
    (r"roi_heads\.box_head\.(\d+)\.1\.(.+)", r"roi.norms.\1.\2"),
    (r"roi_heads\.box_head\.\d+\.(weight|bias)", r"roi.first.\1"),
    (r"roi_heads\.box_predictor\.cls_score\.(.+)", r"roi.classify.\1"),
    (r"roi_heads\.box_predictor\.bbox_pred\.(.+)", r"roi.regress.\1"),
)
_DENSE: tuple[Rule, ...] = (
    (r"head\.classification_head\.cls_logits\.(.+)", r"head.towers.classify.\1"),
    (r"head\.regression_head\.bbox_reg\.(.+)", r"head.towers.regress.\1"),
    (r"head\.regression_head\.bbox_ctrness\.(.+)", r"head.quality.\1"),
)
_TOWER = r"head\.(classification|regression)_head\.conv\.(\d+)\."
_OF_TOWER = {"classification": "class", "regression": "box"}


def plain_name(name: str) -> str:
    """`FCOS_ResNet50_FPN_Weights.COCO_V1` as its network is called, `fcos_resnet50_fpn`; others as they are."""
    network, _, which = name.lower().partition("_weights.")
    return network if network in KNOWN and which in ("", "coco_v1", "default") else name


def is_torchvisions(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of a detector of torchvision's, by their names."""
    return any(name.startswith("backbone.body.") for name in state)


def from_torchvision(state: Mapping[str, Tensor], what: str, published: str | None = None) -> Source:
    """The same weights in our names; those that we have no name for keep theirs.

    `published` names the network where these are torchvision's own COCO weights of it. Files do not say their classes:
    those with as many as COCO's are taken to be COCO's.
    """
    kind = kind_of(state)
    has_background = kind.startswith("fasterrcnn")
    rules = _NECK + (_REGIONS if has_background else _DENSE + _towers(kind))
    tensors = {_renamed(name, rules): tensor for name, tensor in state.items()}
    tensors |= {"backbone.mean": torch.tensor(MEAN), "backbone.std": torch.tensor(STD)}
    count = _count_regions_classes(tensors) if has_background else _count_dense_classes(tensors)
    names = coco_names()[has_background:]
    if has_background:
        _put_background_last(tensors)
    if published is not None and not KNOWN[published].has_epsilon:
        _take_out_epsilon(tensors)
    return Source(
        what=what,
        tensors=tensors,
        count=count,
        names=names if count == len(names) else None,
        fits=f"the detector of `bases/detectors/{KNOWN[kind].preset}.yaml`",
    )


def promised(name: str) -> Source:
    """What the weights of this name will be, without any number in them."""
    from torchvision.models import get_model

    with torch.device("meta"):
        network = get_model(name, weights=None, weights_backbone=None, num_classes=COCO_SLOTS)
    return from_torchvision(network.state_dict(), f"torchvision's {name}")


def weights_of(name: str) -> Any:
    """torchvision's entry of a network's COCO weights: `url`, `get_state_dict`."""
    from torchvision.models import get_model_weights

    return get_model_weights(name)["COCO_V1"]


def coco_names() -> tuple[str, ...]:
    """COCO's class names by torchvision's labels, with what stands in the gaps."""
    return tuple(weights_of("fcos_resnet50_fpn").meta["categories"])


def kind_of(state: Mapping[str, Tensor]) -> str:
    """The name in torchvision of the network that these weights are of, or are most like."""
    if "head.regression_head.bbox_ctrness.weight" in state:
        return "fcos_resnet50_fpn"
    has_regions = any(name.startswith("rpn.") for name in state)
    norm = "backbone.fpn.inner_blocks.0.1.weight" if has_regions else "head.regression_head.conv.0.1.weight"
    return f"{'fasterrcnn' if has_regions else 'retinanet'}_resnet50_fpn{'_v2' if norm in state else ''}"


def _towers(kind: str) -> tuple[Rule, ...]:
    """Layers of the heads' towers: blocks, in which the convolution is the first; or all layers in a row."""

    def rule(rest: str, part: str, per_layer: int) -> Rule:
        def our(found: re.Match[str]) -> str:
            layer = int(found[2]) // per_layer
            return f"head.towers.{_OF_TOWER[found[1]]}_layers.{layer}.{part}.{found[3]}"

        return _TOWER + rest, our

    if kind == "fcos_resnet50_fpn":  # convolution, normalization, ReLU
        return tuple(
            (pattern.replace(r"(\d+)", places), our)
            for part, places in (("convolution", "(0|3|6|9)"), ("norm", "(1|4|7|10)"))
            for pattern, our in (rule("(weight|bias)", part, 3),)
        )
    return rule(r"0\.(.+)", "convolution", 1), rule(r"1\.(.+)", "norm", 1), rule("(weight|bias)", "convolution", 2)


def _renamed(name: str, rules: tuple[Rule, ...]) -> str:
    for pattern, our in rules:
        found = re.fullmatch(pattern, name)
        if found is not None:
            return found.expand(our) if isinstance(our, str) else our(found)
    return name


def _count_regions_classes(tensors: Mapping[str, Tensor]) -> int:
    """Without background; 1 where the layer that says them is not there."""
    said = tensors.get("roi.classify.bias")
    return 1 if said is None else max(1, len(said) - 1)


def _count_dense_classes(tensors: Mapping[str, Tensor]) -> int:
    """Outputs for each box; 1 where the layers that say them are not there."""
    classes, boxes = tensors.get("head.towers.classify.bias"), tensors.get("head.towers.regress.bias")
    return 1 if classes is None or boxes is None else max(1, 4 * len(classes) // max(1, len(boxes)))


def _put_background_last(tensors: dict[str, Tensor]) -> None:
    """It is torchvision's first class, and has boxes that mean nothing."""
    for part in ("weight", "bias"):
        for layer, change in (("classify", lambda each: each.roll(-1, dims=0)), ("regress", lambda each: each[4:])):
            name = f"roi.{layer}.{part}"
            if name in tensors:
                tensors[name] = change(tensors[name])


def _take_out_epsilon(tensors: dict[str, Tensor]) -> None:
    """Scale weights of batch normalization such that with the small number they do what they did without."""
    for name, variance in tensors.items():
        if name.endswith(".running_var"):
            weight = name.replace("running_var", "weight")
            factor = ((variance.double() + EPSILON) / variance.double()).sqrt()
            tensors[weight] = (tensors[weight].double() * factor).to(tensors[weight].dtype)
