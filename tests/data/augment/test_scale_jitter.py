"""Scale jitter: how far it goes, and where it takes boxes."""

import pytest
import torch

from ssodkit.ops.boxes import box_area
from ssodkit.ops.homography import reflection, warp_boxes
from ssodkit.structures.geometry import move_boxes
from ssodkit.structures.teaching import Targets

KEYS = torch.arange(2000)
SIZES = torch.tensor([[40, 80], [90, 30]]).repeat(1000, 1)


def test_scale_jitter__factors_and_shifts_reach_their_bounds_and_are_drawn_apart(parse):
    move = parse({"type": "scale_jitter", "side": 60, "factor": [0.2, 1.8], "shift": 0.1}).draw(KEYS, SIZES)
    assert move.sizes.tolist() == [[60, 60]] * 2000
    height, width = SIZES.double().unbind(dim=1)
    center = (move.homography @ torch.stack([width / 2, height / 2, torch.ones(2000).double()], 1)[..., None])[:, :2, 0]
    drawn = torch.cat([move.homography[:, 0, 0, None], center], dim=1)
    assert torch.equal(move.homography[:, 0, 0], move.homography[:, 1, 1])
    assert not move.homography[:, [0, 1], [1, 0]].any()
    low, high = torch.tensor([0.2, 24.0, 24.0]).double(), torch.tensor([1.8, 36.0, 36.0]).double()
    assert ((drawn >= low - 1e-9) & (drawn <= high + 1e-9)).all()
    reach = 0.01 * (high - low)
    assert (drawn.amin(dim=0) < low + reach).all()
    assert (drawn.amax(dim=0) > high - reach).all()
    assert torch.corrcoef(drawn.T).fill_diagonal_(0.0).abs().max() < 0.1


def test_scale_jitter__of_half_shows_all_of_an_image_twice_as_large(parse):
    jitter = parse({"type": "scale_jitter", "side": 640, "factor": [0.5, 0.5], "shift": 0.0})
    move = jitter.draw(KEYS[:1], torch.tensor([[1280, 1280]]))
    assert warp_boxes(torch.tensor([[[0.0, 640.0, 1280.0, 960.0]]]).double(), move.homography).tolist() == [
        [[0.0, 320.0, 640.0, 480.0]]
    ]


@pytest.mark.parametrize(
    ("factor", "x", "y", "box", "clipped", "share", "mirrored"),
    [
        (0.5, 352.0, 288.0, (100, 200, 300, 400), (242, 228, 342, 328), 1.0, (298, 228, 398, 328)),
        (1.8, 320.0, 320.0, (40, 300, 150, 400), (0, 284, 14, 464), 0.070707, (626, 284, 640, 464)),
    ],
)
def test_scale_jitter__boxes_go_where_the_released_code_carries_them(
    parse, factor, x, y, box, clipped, share, mirrored
):
    """Numbers worked out from the description of Efficient Teacher's code, for an image and a view of 640 pixels."""
    jitter = parse({"type": "scale_jitter", "side": 640, "factor": [factor, factor], "shift": 0.0})
    move = jitter.draw(KEYS[:1], torch.tensor([[640, 640]]))
    move.homography[:, :2, 2] += torch.tensor([x - 320.0, y - 320.0])
    targets = Targets.empty(1, length=1)
    targets.boxes[0, 0], targets.valid[:] = torch.tensor(box), True
    moved = move_boxes(targets, move.homography.float(), move.sizes, 0.0)
    torch.testing.assert_close(moved.boxes[0, 0], torch.tensor(clipped).float())
    assert float(box_area(moved.boxes) / box_area(targets.boxes)) / factor**2 == pytest.approx(share, abs=1e-6)
    kept = move_boxes(targets, move.homography.float(), move.sizes, 0.1).valid
    assert kept.tolist() == [[share >= 0.1]]
    assert warp_boxes(moved.boxes, reflection(torch.tensor([640.0])))[0, 0].tolist() == pytest.approx(list(mirrored))
