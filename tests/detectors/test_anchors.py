from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from ssodkit.detectors.anchors import AnchorConfig, make_anchors
from ssodkit.structures.predictions import Features
from ssodkit.structures.views import View


def features(height: int, width: int, sizes: list[tuple[int, int]], strides: tuple[int, ...] = (4, 8)) -> Features:
    batch = len(sizes)
    maps = tuple(torch.zeros(batch, 1, -(-height // stride), -(-width // stride)) for stride in strides)
    view = View(
        pixels=torch.zeros(batch, 3, 0, 0, dtype=torch.uint8),
        sizes=torch.tensor(sizes),
        homography=torch.eye(3).expand(batch, 3, 3),
        image_ids=torch.arange(batch),
        keys=torch.arange(batch),
    )
    return Features(maps, strides, view)


def test_make_anchors__have_the_published_shape():
    pyramid = features(8, 8, [(8, 8)], (4,))
    pyramid = replace(pyramid, maps=(pyramid.maps[0].double(),))
    left, top, right, bottom = make_anchors(AnchorConfig(sides=((32.0,),)), pyramid).boxes[0, 0].tolist()
    assert (round(right - left, 6), round(bottom - top, 6)) == (45.254834, 22.627417)
    assert left == -right  # the middle is the cell's upper left corner


@pytest.mark.parametrize(("height", "width"), [(96, 160), (128, 128)])
def test_make_anchors__equal_torchvisions_with_its_choices(height: int, width: int):
    strides = (4, 8, 16, 32, 64)
    config = AnchorConfig(rounded=True, spacing="canvas", inside="canvas")
    pyramid = features(height, width, [(height, width)], strides)
    theirs = AnchorGenerator(config.sides, (config.ratios,) * 5)
    images = ImageList(torch.zeros(1, 3, height, width), [(height, width)])
    assert torch.equal(make_anchors(config, pyramid).boxes[0], theirs(images, list(pyramid.maps))[0])


def test_make_anchors__say_level_and_stride():
    config = AnchorConfig(sides=((8.0,), (16.0,)), ratios=(1.0,))
    anchors = make_anchors(config, features(8, 8, [(8, 8)]))
    assert anchors.level is not None
    assert anchors.stride is not None
    assert anchors.level.tolist() == [[0, 0, 0, 0, 1]]
    assert anchors.stride.tolist() == [[4.0, 4.0, 4.0, 4.0, 8.0]]


def test_make_anchors__can_stand_in_the_middle_of_their_cells():
    config = AnchorConfig(sides=((4.0,),), ratios=(1.0,), center=0.5)
    anchors = make_anchors(config, features(4, 8, [(4, 8)], (4,)))
    assert anchors.boxes.tolist() == [[[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0]]]


def test_make_anchors__in_the_padding_are_no_candidates():
    config = AnchorConfig(sides=((8.0,),), ratios=(1.0, 2.0))
    sizes = [(8, 12), (5, 4)]  # height, width on a canvas of 8 x 12
    inside = make_anchors(config, features(8, 12, sizes, (4,))).valid
    cells = inside.unflatten(1, (2, 3, 2)).all(dim=-1)  # batch rows columns
    assert cells.tolist() == [[[True] * 3] * 2, [[True, False, False]] * 2]
    everywhere = config.model_copy(update={"inside": "canvas"})
    assert make_anchors(everywhere, features(8, 12, sizes, (4,))).valid.all()


def test_make_anchors__laid_out_in_inference_serve_training():
    config = AnchorConfig(sides=((7.0,),), ratios=(1.0,))
    with torch.inference_mode():
        make_anchors(config, features(8, 8, [(8, 8)], (4,)))
    anchors = make_anchors(config, features(8, 8, [(8, 8)], (4,)))
    assert not anchors.boxes.is_inference()


@pytest.mark.parametrize(
    "fields", [{"sides": [[8], [8, 16]]}, {"sides": [[], [8]]}, {"sides": [[]]}, {"sides": []}, {"ratios": []}]
)
def test_config__refuses_levels_that_cannot_share_a_head(fields: dict[str, list[float]]):
    with pytest.raises(ValidationError, match="equally many sides on every level"):
        AnchorConfig.model_validate(fields)
