from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.augment.flip import FlipConfig
from ssodkit.data.augment.resize import ResizeConfig
from ssodkit.data.mosaic import MosaicConfig
from ssodkit.data.survey import Spread, best_anchor_ious, boxes_in_view, survey
from ssodkit.data.views import ViewConfig
from ssodkit.detectors.anchors import AnchorConfig, make_anchors
from ssodkit.ops.random import make_key
from ssodkit.structures.predictions import Features
from ssodkit.structures.views import View

CLASSES = [Category(1, "cat"), Category(2, "dog"), Category(3, "emu")]


def photographs() -> ImageSet:
    """Three images; the first has two cats and a dog, the second a dog in a crowd, the third a tall dog."""
    return make_image_set(
        Path(), ["a", "b", "c"], [1, 2, 3], [(100, 200), (80, 60), (50, 50)], CLASSES,
        [0, 0, 0, 1, 2],
        [[0, 0, 10, 10], [20, 20, 60, 30], [0, 50, 100, 90], [0, 0, 9, 9], [10, 0, 20, 40]],
        [0, 0, 1, 1, 1],
        crowd=[False, False, False, True, False],
    )  # fmt: skip


def random_boxes(count: int, side: float) -> np.ndarray:
    random = np.random.RandomState(0)
    corners, lengths = random.uniform(0, 0.6 * side, (count, 2)), random.uniform(4, 0.4 * side, (count, 2))
    return np.concatenate([corners, corners + lengths], axis=1).astype(np.float32)


def test_survey__counts_what_can_be_learned():
    found = survey(photographs())
    assert (found.images, found.empty, found.boxes) == (3, 1, 4)
    assert [tuple(each) for each in found.classes] == [("cat", 1, 2), ("dog", 2, 2), ("emu", 0, 0)]
    assert (found.short_sides.least, found.short_sides.median, found.long_sides.most) == (50.0, 60.0, 200.0)
    assert (found.sides.least, found.sides.most) == (10.0, pytest.approx(4000**0.5))
    assert (found.ratios.least, found.ratios.most) == (0.25, 4.0)
    assert (found.per_image.least, found.per_image.most) == (0.0, 3.0)


def test_survey__of_nothing_is_zero():
    found = survey(photographs().subset([]))
    assert (found.images, found.boxes, found.sides, found.short_sides) == (0, 0, Spread(), Spread())
    assert [each.boxes for each in found.classes] == [0, 0, 0]


def test_boxes_in_view__are_those_of_the_drawn_geometry():
    halved = boxes_in_view(photographs(), ViewConfig(transforms=(ResizeConfig(short=50),)), 0.0)
    assert halved.sizes.tolist() == [[50, 100], [67, 50], [50, 50]]
    assert halved.per_image.tolist() == [3, 0, 1]
    assert halved.scales.tolist() == pytest.approx([0.5, (67 / 80 * 50 / 60) ** 0.5, 1.0])
    assert halved.boxes[2].tolist() == [0.0, 25.0, 50.0, 45.0]
    mirrored = boxes_in_view(photographs(), ViewConfig(transforms=(FlipConfig(probability=1.0),)), 0.0)
    assert mirrored.boxes[0].tolist() == [190.0, 0.0, 200.0, 10.0]


def test_boxes_in_view__of_mosaics_are_those_of_four_images():
    images, mosaic = photographs(), MosaicConfig(side=100)
    whole = boxes_in_view(images, ViewConfig(), 0.0, mosaic)
    assert whole.sizes.tolist() == [[200, 200]] * 3
    assert whole.scales.tolist() == pytest.approx([0.5, 1.25, 2.0])
    laid = mosaic.draw(torch.tensor([make_key("survey", number) for number in (1, 2, 3)]), 3)
    most = np.array([3, 0, 1])[np.concatenate([np.arange(3)[:, None], laid.partners.numpy()], axis=1)].sum(axis=1)
    assert (whole.per_image <= most).all()
    assert whole.per_image.sum() > 4
    assert whole.boxes.max() <= 200.0
    halved = boxes_in_view(images, ViewConfig(transforms=(ResizeConfig(short=100),)), 0.0, mosaic)
    np.testing.assert_allclose(halved.boxes, whole.boxes / 2)
    assert boxes_in_view(images.subset([]), ViewConfig(), 0.0, mosaic).sizes.tolist() == []


def test_boxes_in_view__a_sample_is_evenly_spaced_and_nothing_is_a_normal_case():
    assert boxes_in_view(photographs(), ViewConfig(), 0.0, at_most=2).sizes.tolist() == [[100, 200], [50, 50]]
    nothing = boxes_in_view(photographs().subset([]), ViewConfig(), 0.0)
    assert (nothing.boxes.shape, nothing.sizes.shape) == ((0, 4), (0, 2))


@pytest.mark.parametrize("center", [0.0, 0.5])
def test_best_anchor_ious__are_those_of_the_anchors_that_are_laid(center):
    """Of boxes well inside the image, where the anchors beyond its border win nothing."""
    config = AnchorConfig(sides=((12.0, 16.0), (40.0, 55.0)), ratios=(0.5, 1.0, 2.0), center=center)
    view = View(torch.zeros(1, 3, 160, 160, dtype=torch.uint8), torch.tensor([[160, 160]]), torch.eye(3)[None],
                torch.tensor([1]), torch.tensor([1]))  # fmt: skip
    features = Features((torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 10, 10)), (8, 16), view)
    anchors = make_anchors(config, features)
    boxes = random_boxes(200, 100.0) + 25.0
    expected = box_iou(torch.from_numpy(boxes), anchors.boxes[0]).amax(dim=1)
    found = best_anchor_ious(boxes, config.sides, config.ratios, (8, 16), center)
    assert found == pytest.approx(expected.numpy(), abs=1e-5)


def test_best_anchor_ious__no_box_is_a_normal_case():
    assert best_anchor_ious(np.zeros((0, 4), np.float32), [[8.0]], [1.0], [4]).shape == (0,)
