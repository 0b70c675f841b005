"""A detector of ours beside torchvision's, with the same weights: what both oracle tests make and compare."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from ssodkit.detectors.base import Detector
from ssodkit.detectors.starting import Start, misfit
from ssodkit.detectors.torchvision_weights import from_torchvision
from ssodkit.plugins import load_plugins
from ssodkit.recipe.merge import read_tree
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

BASES = Path(__file__).parents[1] / "recipes" / "bases" / "detectors"
CLASSES = 4
SIZES = [(128, 128), (96, 120)]
NEAR = {torch.float64: {"rtol": 1e-8, "atol": 1e-8}, torch.float32: {"rtol": 1e-4, "atol": 1e-4}}
"""How near the answers must be."""


@dataclass(frozen=True)
class Images:
    """The same two images with their boxes, in both forms."""

    view: View
    canvas: ImageList
    targets: Targets
    their_targets: list[dict[str, Tensor]]

    @property
    def supervision(self) -> Supervision:
        return Supervision.uniform(self.targets, Progress(0, 1))


def make_images(transform: nn.Module, dtype: torch.dtype, first_label: int) -> Images:
    """Images that `transform`, theirs, has normalized; their labels count from `first_label`."""
    pixels = torch.zeros(2, 3, 128, 128, dtype=torch.uint8)
    for row, (height, width) in enumerate(SIZES):
        pixels[row, :, :height, :width] = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    view = View(pixels, torch.tensor(SIZES), torch.eye(3).repeat(2, 1, 1), torch.arange(2), torch.tensor([11, 12]))
    crops = [pixels[row, :, :height, :width].to(dtype) / 255 for row, (height, width) in enumerate(SIZES)]
    canvas = transform.batch_images([transform.normalize(crop) for crop in crops], size_divisible=32)
    boxes = torch.tensor(
        [
            [[8.0, 10.0, 60.0, 70.0], [40.0, 30.0, 110.0, 120.0], [70.0, 5.0, 100.0, 25.0]],
            [[20.0, 20.0, 52.0, 50.0], [30.0, 40.0, 115.0, 90.0], [0.0, 0.0, 0.0, 0.0]],
        ],
        dtype=dtype,
    )
    labels = torch.tensor([[0, 3, 1], [2, 1, 0]])
    valid = torch.tensor([[True, True, True], [True, True, False]])
    targets = Targets(boxes, labels, valid, valid.to(dtype), torch.zeros_like(valid))
    theirs = [{"boxes": boxes[row][valid[row]], "labels": labels[row][valid[row]] + first_label} for row in range(2)]
    return Images(view, ImageList(canvas, SIZES), targets, theirs)


def read_config(name: str, overrides: list[str]) -> dict[str, Any]:
    """The detector of a base, as plain values."""
    load_plugins()
    detector: dict[str, Any] = read_tree(BASES / f"{name}.yaml", overrides).plain["detector"]
    return detector


def spread_norms(theirs: nn.Module) -> None:
    """Batch-norms under which features differ from place to place; those of a fresh network hardly do."""
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


def spread_layer(layer: nn.Module, std: float) -> None:
    """Weights under which its answers differ as well."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.1)


def copy_weights(theirs: nn.Module, ours: Detector) -> None:
    """As a recipe's `detector.weights` does; how pixels are normalized in float64."""
    source = from_torchvision(theirs.state_dict(), "theirs")
    assert misfit(source, ours.config) is None
    Start(source, tuple("abcd")).put_into(ours)
    ours.backbone.mean = torch.tensor(theirs.transform.image_mean, dtype=torch.float64)
    ours.backbone.std = torch.tensor(theirs.transform.image_std, dtype=torch.float64)


def check_pyramid(ours: tuple[Tensor, ...], theirs: list[Tensor]) -> None:
    """Five levels, equal, and not all alike."""
    assert len(ours) == 5
    for level, their_level in zip(ours, theirs, strict=True):
        torch.testing.assert_close(level, their_level, rtol=1e-8, atol=1e-8)
        assert level.std() > 0.05


def check_detections(
    ours: Detections, theirs: list[dict[str, Tensor]], first_label: int, near: Mapping[str, float]
) -> None:
    """The same, more than 20 of each image, of all classes."""
    for row, found in enumerate(theirs):
        valid = ours.valid[row]
        assert valid.sum() == len(found["boxes"]) > 20
        assert ours.labels[row][valid].tolist() == (found["labels"] - first_label).tolist()
        torch.testing.assert_close(ours.boxes[row][valid], found["boxes"], **near)
        torch.testing.assert_close(ours.confidence[row][valid], found["scores"], **near)
    assert len(ours.labels.unique()) == CLASSES


def check_gradients(
    ours: Tensor, theirs: Tensor, layers: Mapping[str, tuple[nn.Module, nn.Module]], least: float
) -> None:
    """Both losses have the same gradient at the weights of each pair of layers, and one of at least so much."""
    our_gradients = torch.autograd.grad(ours, [mine.weight for mine, _ in layers.values()])
    their_gradients = torch.autograd.grad(theirs, [other.weight for _, other in layers.values()])
    for name, mine, other in zip(layers, our_gradients, their_gradients, strict=True):
        near = {"rtol": 1e-8, "atol": 1e-8 * other.abs().max().item()}
        torch.testing.assert_close(mine, other, **near, msg=lambda text, name=name: f"{name}: {text}")
        assert mine.abs().max() > least, name
