import pytest
import torch
from torchvision.ops import box_convert, box_iou

from ssodkit.ops.denoising import blocked_between, lay_slots, move_corners


@pytest.mark.parametrize(
    ("boxes", "groups", "queries"),
    [(1, 100, 200), (3, 33, 198), (7, 14, 196), (20, 5, 200), (63, 1, 126), (100, 1, 200), (120, 1, 240)],
)
def test_lay_slots__makes_the_groups_of_the_released_code(boxes: int, groups: int, queries: int):
    count = torch.tensor([boxes])
    slots = lay_slots(count, count, 100, 2 * max(100, boxes))
    assert slots.used.sum() == queries
    assert slots.positive.sum() == queries // 2
    assert slots.group[slots.used].max() + 1 == groups
    for kind in (slots.positive, slots.used & ~slots.positive):
        assert slots.target[kind].bincount().tolist() == [groups] * boxes


def test_lay_slots__without_targets_none_is_used():
    slots = lay_slots(torch.tensor([0, 2]), torch.tensor([0, 2]), 100, 200)
    assert slots.used.sum(dim=1).tolist() == [0, 200]


def test_lay_slots__in_a_batch_with_common_groups_those_of_shorter_rows_have_gaps():
    slots = lay_slots(torch.tensor([2, 1]), torch.tensor([2, 2]), 4, 8)
    assert slots.positive[0].nonzero()[:, 0].tolist() == [0, 1, 4, 5]
    assert (slots.used & ~slots.positive)[0].nonzero()[:, 0].tolist() == [2, 3, 6, 7]
    assert slots.positive[1].nonzero()[:, 0].tolist() == [0, 4]
    assert (slots.used & ~slots.positive)[1].nonzero()[:, 0].tolist() == [2, 6]
    assert (~slots.used)[1].nonzero()[:, 0].tolist() == [1, 3, 5, 7]
    blocked = blocked_between(slots, 3)[0]
    assert blocked.shape == (11, 11)
    assert blocked.sum() == 56
    assert (~blocked[0]).nonzero()[:, 0].tolist() == [0, 1, 2, 3, 8, 9, 10]


def test_blocked_between__groups_see_themselves_and_all_queries():
    count = torch.tensor([3])
    blocked = blocked_between(lay_slots(count, count, 100, 198), 900)
    assert blocked.shape == (1, 1098, 1098)
    assert blocked.sum() == 216_216
    assert not blocked[:, :, 198:].any()
    assert blocked[:, 198:, :198].all()


def test_move_corners__by_up_to_half_a_side_for_what_comes_back_and_further_for_what_does_not():
    box = torch.tensor([0.5, 0.5, 0.2, 0.4], dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    draws = torch.tensor([0.5, 0.5, 0.25, 0.75], dtype=torch.float64)
    near, far = (move_corners(box, signs, draws + add, 0.4) for add in (0.0, 1.0))
    torch.testing.assert_close(near, torch.tensor([0.515, 0.51, 0.19, 0.50], dtype=torch.float64))
    torch.testing.assert_close(far, torch.tensor([0.555, 0.51, 0.19, 0.66], dtype=torch.float64))
    corners = box_convert(torch.stack([box, near, far]), "cxcywh", "xyxy")
    expected = torch.tensor([[0.699029, 0.374833]], dtype=torch.float64)
    torch.testing.assert_close(box_iou(corners[:1], corners[1:]), expected, rtol=0, atol=1e-6)


def test_move_corners__stays_in_the_image_and_never_turns_inside_out():
    boxes = torch.tensor([[0.1, 0.9, 0.2, 0.2], [0.5, 0.5, 0.4, 0.4]])
    signs = torch.tensor([[-1.0, 1.0, 1.0, 1.0], [1.0, 1.0, -1.0, -1.0]])
    moved = move_corners(boxes, signs, torch.full((2, 4), 1.5), 1.0)
    corners = box_convert(moved, "cxcywh", "xyxy")
    assert ((corners >= 0.0) & (corners <= 1.0)).all()
    assert (moved[:, 2:] >= 0.0).all()
    assert moved[1, 2:].tolist() == [0.0, 0.0]
