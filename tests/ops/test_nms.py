import torch
from torchvision.ops import batched_nms as their_nms

from ssodkit.ops.nms import batched_nms, suppress


def scene(batch: int, count: int, groups: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    low = 60.0 * torch.rand(batch, count, 2, generator=generator)
    boxes = torch.cat([low, low + 10.0 + 30.0 * torch.rand(batch, count, 2, generator=generator)], dim=-1)
    return (
        boxes,
        torch.rand(batch, count, generator=generator),
        torch.randint(groups, (batch, count), generator=generator),
    )


def assert_equal_to_torchvision(boxes, scores, groups, valid, iou: float, keep: int) -> None:
    index, kept = batched_nms(boxes, scores, groups, valid, iou, keep)
    for row in range(len(boxes)):
        mine = valid[row].nonzero()[:, 0]
        theirs = mine[their_nms(boxes[row][mine].double(), scores[row][mine].double(), groups[row][mine], iou)[:keep]]
        assert index[row][kept[row]].tolist() == theirs.tolist()


def test_batched_nms__equals_torchvision_image_by_image():
    boxes, scores, groups = scene(batch=3, count=100, groups=4)  # one call of the kernel
    valid = torch.rand(3, 100, generator=torch.Generator().manual_seed(1)) > 0.2
    assert_equal_to_torchvision(boxes, scores, groups, valid, iou=0.5, keep=30)


def test_batched_nms__without_suppression_gives_the_best_and_asks_the_host_nothing(host_questions):
    boxes, scores, groups = scene(batch=3, count=100, groups=4)
    valid = torch.rand(3, 100, generator=torch.Generator().manual_seed(1)) > 0.2
    with host_questions() as asked:
        index, kept = batched_nms(boxes, scores, groups, valid, None, keep=85)
    assert not asked
    for row in range(3):
        best = [place for place in scores[row].argsort(descending=True).tolist() if valid[row, place]]
        assert index[row][kept[row]].tolist() == best[:85]


def test_batched_nms__equals_torchvision_where_it_needs_many_calls():
    boxes, scores, groups = scene(batch=3, count=900, groups=7)
    assert_equal_to_torchvision(boxes, scores, groups, torch.ones_like(scores, dtype=torch.bool), iou=0.6, keep=900)


def test_batched_nms__equals_torchvision_where_one_group_is_larger_than_a_call():
    boxes, scores, groups = scene(batch=2, count=1200, groups=1)
    assert_equal_to_torchvision(boxes, scores, groups, torch.ones_like(scores, dtype=torch.bool), iou=0.6, keep=100)


def test_batched_nms__moves_groups_apart_exactly():
    # Both overlap by 0.7 and a little; 90 groups further on, fp32 offsets would round that away.
    boxes = torch.tensor([[[0.0, 0.0, 1333.0, 800.0], [0.0, 0.0, 1333.0, 560.0001]]]).repeat(1, 90, 1)
    groups = torch.arange(90).repeat_interleave(2)[None]
    scores = torch.linspace(1.0, 0.1, 180)[None]
    _, kept = batched_nms(boxes, scores, groups, torch.ones_like(groups, dtype=torch.bool), 0.7, 180)
    assert kept.sum() == 90


def test_batched_nms__of_nothing_keeps_nothing():
    none = torch.zeros(2, 0)
    index, kept = batched_nms(torch.zeros(2, 0, 4), none, none.long(), none.bool(), 0.5, 10)
    assert index.shape == kept.shape == (2, 0)
    boxes, scores, groups = scene(batch=2, count=5, groups=2)
    _, kept = batched_nms(boxes, scores, groups, torch.zeros_like(scores, dtype=torch.bool), 0.5, 10)
    assert kept.tolist() == [[False] * 5] * 2


def test_batched_nms__invalid_boxes_suppress_nothing():
    boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]]])
    valid = torch.tensor([[False, True]])
    index, kept = batched_nms(boxes, torch.tensor([[0.9, 0.1]]), torch.zeros(1, 2, dtype=torch.int64), valid, 0.5, 2)
    assert index[kept].tolist() == [1]


def test_suppress__keeps_the_first_of_equals_and_an_overlap_at_the_threshold():
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [0.0, 0.0, 10.0, 10.0]])
    keeps = suppress(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), iou=0.5)
    assert keeps.tolist() == [True, True, False]
