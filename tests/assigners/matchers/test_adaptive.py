"""The numbers are those of Consistent-Teacher's assignment, calculated by hand from its formulas."""

import pytest
import torch
from lesson import normalize
from torchvision.ops import box_iou, generalized_box_iou

from ssodkit.assigners.matchers.adaptive import Adaptive, AdaptiveConfig
from ssodkit.ops.adaptive_matching import focal_corrections, focal_costs_of_background
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND

PROGRESS = Progress(0, 1)
CENTERS = torch.tensor([[[16, 16], [24, 16], [24, 24], [32, 24], [40, 32], [48, 40], [56, 56]]]).float()
BOXES = torch.tensor(
    [
        [
            [6, 5, 34, 33],
            [9, 8, 37, 36],
            [10, 9, 36, 37],
            [14, 10, 42, 40],
            [22, 20, 58, 52],
            [26, 22, 60, 56],
            [50, 50, 62, 62],
        ]
    ]
).float()
PROBS = torch.tensor(
    [
        [
            [0.6, 0.1, 0.05],
            [0.7, 0.1, 0.05],
            [0.5, 0.2, 0.05],
            [0.3, 0.4, 0.05],
            [0.1, 0.8, 0.05],
            [0.1, 0.55, 0.05],
            [0.02, 0.02, 0.02],
        ]
    ]
)
GOALS = torch.tensor([[[8.0, 8.0, 36.0, 36.0], [24.0, 20.0, 60.0, 56.0]]])
LABELS = torch.tensor([[0, 1]])
WEIGHTS = [0.708061, 0.931034, 0.866667, 0.0, 0.8, 0.891975, 0.0]


@pytest.fixture
def match(answering, taught):
    """centers, boxes, probabilities, target boxes, labels, changes of the answers, fields -> the assignment."""

    def make(centers=CENTERS, boxes=BOXES, probs=PROBS, goals=GOALS, labels=LABELS, activation="sigmoid", **fields):
        predictions = answering(centers, boxes, probs, activation=activation)
        return Adaptive(AdaptiveConfig(**fields))(predictions, taught(goals, labels), PROGRESS)

    return make


def test_adaptive__assigns_the_example(match):
    found = match()
    assert found.index.tolist() == [[0, 0, 0, BACKGROUND, 1, 1, BACKGROUND]]
    assert found.weight.tolist() == [[1.0] * 7]
    positive = found.quality * found.positive
    torch.testing.assert_close(positive, torch.tensor([WEIGHTS]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.quality[0, 3].item(), 0.543726, rtol=0, atol=1e-6)
    # The last one lies on the border of its target, and is no candidate although it overlaps.
    assert found.quality[0, 6] > 0.0


def test_adaptive__the_losses_of_the_example(match):
    found = match()
    losses = torch.zeros(1, 7)
    _, total = normalize("quality", losses, torch.ones(1, 7), found)[""]
    assert total.item() == pytest.approx(4.197737, abs=2e-6)
    focal = focal_costs_of_background(PROBS, 0.25, 2.0)
    own = PROBS.gather(2, LABELS[:, found.index[0].clamp(min=0)][..., None])[..., 0]
    focal = focal + focal_corrections(own, 0.25, 2.0) * found.positive
    assert focal.sum().item() == pytest.approx(0.200102, abs=1e-6)
    assert (focal.sum() / total).item() == pytest.approx(0.047669, abs=1e-6)
    giou = generalized_box_iou(BOXES[0], GOALS[0]).gather(1, found.index[0].clamp(min=0)[:, None])[:, 0]
    expected = torch.tensor([0.695158, 0.931034, 0.864204, 0.794152, 0.891975])
    torch.testing.assert_close(giou[found.positive[0]], expected, rtol=0, atol=1e-6)
    boxes = 2.0 * (found.quality[0] * (1.0 - giou) * found.positive[0]).sum()
    assert boxes.item() == pytest.approx(1.317560, abs=2e-6)
    assert (boxes / total).item() == pytest.approx(0.313874, abs=1e-6)


def test_adaptive__a_candidate_inside_any_target_is_one_for_all(match):
    # Its center is outside of the second target, of which it has the best answer.
    centers, boxes = torch.tensor([[[16.0, 16.0]]]), torch.tensor([[[30.0, 8.0, 58.0, 36.0]]])
    goals = torch.tensor([[[8.0, 8.0, 36.0, 36.0], [30.0, 8.0, 58.0, 36.0]]])
    assert match(centers, boxes, torch.tensor([[[0.1, 0.9]]]), goals).index.tolist() == [[1]]


def test_adaptive__without_a_candidate_inside_a_target_all_is_background(match):
    centers = torch.tensor([[[8.0, 20.0], [36.0, 20.0], [20.0, 8.0], [20.0, 36.0]]])  # on its four sides
    boxes = GOALS[:, :1].expand(1, 4, 4)
    found = match(centers, boxes, torch.full((1, 4, 1), 0.9), GOALS[:, :1], LABELS[:, :1])
    assert found.index.tolist() == [[BACKGROUND] * 4]
    torch.testing.assert_close(found.quality, torch.ones(1, 4))  # still the best IoU


def test_adaptive__a_target_without_any_overlap_takes_one_candidate_of_quality_zero(match):
    boxes = torch.tensor([[[100.0, 100.0, 110.0, 110.0], [100.0, 100.0, 110.0, 110.0]]])
    found = match(CENTERS[:, :2], boxes, torch.full((1, 2, 1), 0.5), GOALS[:, :1], LABELS[:, :1])
    assert found.index.tolist() == [[BACKGROUND, 0]]
    assert found.quality.tolist() == [[0.0, 0.0]]


def test_adaptive__a_target_without_area_takes_nothing(match):
    goals = torch.cat([GOALS, torch.tensor([[[20.0, 10.0, 20.0, 30.0]]])], dim=1)
    found = match(goals=goals, labels=torch.tensor([[0, 1, 2]]))
    assert found.index.tolist() == match().index.tolist()


def test_adaptive__a_candidate_39_cells_away_is_not_taken(match):
    # A small target between the cells, and a large one far away, in which all candidates are.
    goals = torch.tensor([[[1.0, 1.0, 3.0, 3.0], [380.0, 0.0, 420.0, 40.0]]])
    centers = torch.tensor([[[400.0, 16.0], [400.0, 24.0]]])
    boxes = torch.tensor([[[380.0, 0.0, 420.0, 40.0], [0.0, 0.0, 10.0, 10.0]]])
    found = match(centers, boxes, torch.full((1, 2, 2), 0.5), goals)
    assert found.index.tolist() == [[1, BACKGROUND]]
    assert found.quality.isfinite().all()
    near = match(centers - torch.tensor([200.0, 0.0]), boxes, torch.full((1, 2, 2), 0.5), goals)
    assert near.index.tolist() == [[BACKGROUND, BACKGROUND]]  # inside of no target


def test_adaptive__full_coco_weighs_the_iou_more(match):
    centers, goals = torch.tensor([[[20.0, 20.0], [20.0, 20.0]]]), torch.tensor([[[0.0, 0.0, 40.0, 40.0]]])
    boxes = torch.tensor([[[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, 40.0, 16.0]]])  # IoU 1 and 0.4
    probs = torch.tensor([[[0.0025], [0.9]]])  # 1.49 and 0.00 for the class; 0 and 0.92 x weight for the IoU
    for weight, taken in ((1.0, [BACKGROUND, 0]), (2.0, [0, BACKGROUND])):
        found = match(centers, boxes, probs, goals, LABELS[:, :1], iou_weight=weight)
        assert found.index.tolist() == [taken], weight


def test_adaptive__under_a_softmax_background_is_no_class(match):
    with_background = torch.cat([PROBS, 1.0 - PROBS.sum(dim=-1, keepdim=True)], dim=-1)
    found = match(probs=with_background, activation="softmax")
    assert found.index.tolist() == [[0, 0, 0, BACKGROUND, 1, 1, BACKGROUND]]


def test_adaptive__equals_the_formula_on_many_candidates(match, monkeypatch):
    monkeypatch.setattr("ssodkit.ops.matching.CPU_CHUNK_BYTES", 4 * 600 * 4 * 2)  # two targets at a time
    generator = torch.Generator().manual_seed(0)
    centers = 8.0 * torch.randint(0, 20, (2, 600, 2), generator=generator).float()
    low = centers - 20.0 * torch.rand(2, 600, 2, generator=generator)
    boxes = torch.cat([low, low + 10.0 + 40.0 * torch.rand(2, 600, 2, generator=generator)], dim=-1)
    low = 120.0 * torch.rand(2, 9, 2, generator=generator)
    goals = torch.cat([low, low + 10.0 + 30.0 * torch.rand(2, 9, 2, generator=generator)], dim=-1)
    probs = 0.02 + 0.9 * torch.rand(2, 600, 3, generator=generator)
    labels = torch.randint(0, 3, (2, 9), generator=generator)
    found = match(centers, boxes, probs, goals, labels)
    for row in range(2):
        index, iou = by_the_formula(centers[row], boxes[row], probs[row], goals[row], labels[row])
        assert torch.equal(found.index[row], index)
        torch.testing.assert_close(found.quality[row], iou, rtol=0, atol=1e-5)
    assert found.positive.sum() > 40


def by_the_formula(centers, boxes, probs, goals, labels):
    """Targets and IoU of one image's candidates, target by target and candidate by candidate."""
    iou = box_iou(boxes, goals)
    inside = ((centers[:, None] > goals[:, :2]) & (centers[:, None] < goals[:, 2:])).all(dim=-1).any(dim=1)
    wanted = torch.nn.functional.one_hot(labels, 3).float()
    cost = torch.zeros(len(boxes), len(goals))
    for place, y in enumerate(wanted):
        cross = torch.nn.functional.binary_cross_entropy(probs, y.expand_as(probs), reduction="none")
        balance = 0.25 * y + 0.75 * (1.0 - y)
        cost[:, place] = (balance * (y * (1.0 - probs) + (1.0 - y) * probs) ** 2 * cross).sum(dim=1)
    middle = 0.5 * (goals[:, :2] + goals[:, 2:])
    cost = cost - 2.0 * (iou + 1e-7).log() + 0.001 * 10.0 ** (torch.cdist(centers, middle) / 8.0)
    cost[~inside] = torch.inf
    takers: dict[int, list[int]] = {}
    for place in range(len(goals)):
        count = max(1, int(iou[inside, place].sort(descending=True).values[:13].sum()))
        for candidate in cost[:, place].argsort()[:count].tolist():
            takers.setdefault(candidate, []).append(place)
    index, quality = torch.full((len(boxes),), BACKGROUND), iou.amax(dim=1)
    for candidate, places in takers.items():
        index[candidate] = places[0] if len(places) == 1 else cost[candidate].argmin()
        quality[candidate] = iou[candidate, index[candidate]]
    return index, quality
