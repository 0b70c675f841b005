import pytest
import torch
from torchvision.ops import box_iou

from ssodkit.assigners.matchers.one_to_many import OneToMany, OneToManyConfig
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND

PROGRESS = Progress(0, 1)
SCORE = [0.9, 0.6, 0.4, 0.8, 0.3, 0.1, 0.5, 0.02]
IOU = [0.8, 0.9, 0.7, 0.2, 0.6, 0.1, 0.45, 0.0]


@pytest.fixture
def match(answering, taught):
    """boxes, probabilities, target boxes, labels, fields -> the assignment."""

    def make(boxes, probs, goals, labels, **fields):
        predictions = answering(torch.zeros(*boxes.shape[:2], 2), boxes, probs)
        return OneToMany(OneToManyConfig(**fields))(predictions, taught(goals, labels), PROGRESS)

    return make


def test_one_to_many__assigns_the_first_target_of_the_example(match):
    # A box as high as the target and IoU times as wide has that IoU; the last one lies beside it.
    width = torch.tensor(IOU) * 100.0
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), width, torch.full((8,), 100.0)], dim=-1)
    boxes[7] = torch.tensor([200.0, 0.0, 300.0, 100.0])
    probs = torch.tensor([SCORE, [0.5] * 8]).T
    goals = torch.tensor([[[0.0, 0.0, 100.0, 100.0]]])
    found = match(boxes[None], probs[None], goals, torch.tensor([[0]]), candidates_per_target=3)
    assert found.index.tolist() == [[0, 0, 0] + [BACKGROUND] * 5]
    expected = [0.665915, 0.9, 0.132826, 0.2, 0.6, 0.1, 0.45, 0.0]  # soft targets, then the best IoUs
    torch.testing.assert_close(found.quality, torch.tensor([expected]), rtol=0, atol=1e-5)
    assert found.weight.tolist() == [[1.0] * 8]
    found = match(boxes[None], probs[None], goals, torch.tensor([[0]]))  # 13 of 8: all that overlap
    assert found.index.tolist() == [[0] * 7 + [BACKGROUND]]


def test_one_to_many__equals_the_formula_on_many_candidates(match, monkeypatch):
    monkeypatch.setattr("ssodkit.ops.matching.CPU_CHUNK_BYTES", 4 * 600 * 4 * 2)  # two targets at a time
    generator = torch.Generator().manual_seed(0)
    low = 60.0 * torch.rand(2, 300, 2, generator=generator)
    boxes = torch.cat([low, low + 20.0 + 30.0 * torch.rand(2, 300, 2, generator=generator)], dim=-1)
    low = 60.0 * torch.rand(2, 9, 2, generator=generator)
    goals = torch.cat([low, low + 20.0 + 30.0 * torch.rand(2, 9, 2, generator=generator)], dim=-1)
    probs = 0.02 + 0.9 * torch.rand(2, 300, 3, generator=generator)
    labels = torch.randint(0, 3, (2, 9), generator=generator)
    found = match(boxes, probs, goals, labels, score_power=0.5, iou_power=4.0)
    for row in range(2):
        index, quality = by_the_formula(boxes[row], probs[row], goals[row], labels[row], 0.5, 4.0)
        assert torch.equal(found.index[row], index)
        torch.testing.assert_close(found.quality[row], quality, rtol=0, atol=1e-5)
    assert found.positive.sum() > 60


def by_the_formula(boxes, probs, goals, labels, score_power, iou_power):
    """Targets and soft targets of one image's candidates, target by target and candidate by candidate."""
    iou = box_iou(boxes, goals)
    metric = probs[:, labels] ** score_power * iou**iou_power
    index = torch.full((len(boxes),), BACKGROUND)
    for place in range(len(goals)):
        for candidate in metric[:, place].argsort(descending=True)[:13].tolist():
            own = index[candidate]
            if metric[candidate, place] > 0.0 and (own < 0 or iou[candidate, place] > iou[candidate, own]):
                index[candidate] = place
    quality = iou.amax(dim=1)
    for place in range(len(goals)):
        mine = index == place
        if mine.any():
            best = metric[mine, place].max() + 1e-7
            quality[mine] = metric[mine, place] / best * iou[mine, place].max()
    return index, quality
