import pytest
import torch
from pydantic import ValidationError
from torchvision.models.detection._utils import Matcher as TheirMatcher
from torchvision.ops import box_iou

from ssodkit.assigners.matchers.max_iou import MaxIou, MaxIouConfig
from ssodkit.ops.coding import BoxCoder
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment, Targets

PROGRESS = Progress(0, 1)
SQUARE = (0.0, 0.0, 10.0, 10.0)


def match(candidates: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor | None = None, **fields) -> Assignment:
    batch, count = candidates.shape[:2]
    seen = Candidates(candidates, torch.ones(batch, count, dtype=torch.bool) if valid is None else valid)
    predictions = Predictions(
        seen, torch.zeros(batch, count, 0), "sigmoid", torch.zeros(batch, count, 0, 4), BoxCoder()
    )
    full = torch.ones(targets.shape[:2])
    taught = Targets(targets, full.long() * 0, full.bool(), full, ~full.bool())
    return MaxIou(MaxIouConfig(**fields))(predictions, taught, PROGRESS)


def random_boxes(batch: int, count: int, seed: int) -> torch.Tensor:
    """On a coarse grid, so that many overlaps are equal."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 6, (batch, count, 2), generator=generator)
    return torch.cat([low, low + torch.randint(1, 4, (batch, count, 2), generator=generator)], dim=-1).float()


@pytest.mark.parametrize(("positive", "negative", "best"), [(0.7, 0.3, True), (0.5, 0.5, False), (0.6, 0.2, True)])
def test_max_iou__equals_torchvision_with_its_choices(positive: float, negative: float, best: bool):
    candidates, targets = random_boxes(3, 200, 0), random_boxes(3, 6, 1)
    fields = {"best_from": 0.0, "best_learns": "its_own"} if best else {"best_from": None}
    ours = match(candidates, targets, positive=positive, negative=negative, **fields)
    for row in range(3):
        theirs = TheirMatcher(positive, negative, allow_low_quality_matches=best)(
            box_iou(targets[row], candidates[row])
        )
        assert torch.equal(ours.index[row], theirs)
    assert ours.positive.sum() > 10


def test_max_iou__has_three_kinds_with_inclusive_thresholds():
    boxes = [(0.0, 0.0, 10.0, 7.0), (0.0, 0.0, 10.0, 6.9), (0.0, 0.0, 10.0, 3.0), (0.0, 0.0, 10.0, 2.9), SQUARE]
    answer = match(torch.tensor([boxes]), torch.tensor([[SQUARE]]))
    assert answer.index.tolist() == [[0, IGNORE, IGNORE, BACKGROUND, 0]]
    torch.testing.assert_close(answer.quality, torch.tensor([[0.7, 0.69, 0.3, 0.29, 1.0]]))
    assert answer.weight.tolist() == [[1.0] * 5]
    assert answer.sampled.tolist() == [0.0]


@pytest.mark.parametrize(("best_from", "index"), [(0.3, 0), (0.41, IGNORE), (None, IGNORE)])
def test_max_iou__the_best_candidate_of_a_target_is_positive_from_a_minimum(best_from: float | None, index: int):
    candidates = torch.tensor([[(0.0, 0.0, 10.0, 4.0), (0.0, 0.0, 10.0, 3.5)]])
    answer = match(candidates, torch.tensor([[SQUARE]]), best_from=best_from)
    assert answer.index.tolist() == [[index, IGNORE]]


def test_max_iou__the_best_candidate_learns_that_target_or_its_own():
    # The candidate overlaps the first target more, but is the best that the second one has.
    candidates = torch.tensor([[(0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 9.0)]])
    targets = torch.tensor([[(0.0, 0.0, 10.0, 10.0), (0.0, 8.0, 10.0, 9.0)]])
    that = match(candidates, targets, best_from=0.05)
    assert that.index.tolist() == [[0, 1]]
    torch.testing.assert_close(that.quality, torch.tensor([[1.0, 1.0 / 9.0]]))
    own = match(candidates, targets, best_from=0.05, best_learns="its_own")
    assert own.index.tolist() == [[0, 0]]
    torch.testing.assert_close(own.quality, torch.tensor([[1.0, 0.9]]))


def test_max_iou__a_target_that_nothing_touches_makes_no_positive():
    answer = match(torch.tensor([[SQUARE]]), torch.tensor([[(50.0, 50.0, 60.0, 60.0)]]), best_from=0.0)
    assert answer.index.tolist() == [[BACKGROUND]]


def test_max_iou__ignores_candidates_that_are_not_valid():
    candidates = torch.tensor([[SQUARE, SQUARE]])
    answer = match(candidates, torch.tensor([[SQUARE]]), valid=torch.tensor([[False, True]]))
    assert answer.index.tolist() == [[IGNORE, 0]]


def test_max_iou__without_targets_all_is_background():
    answer = match(random_boxes(2, 3, 0), torch.zeros(2, 0, 4))
    assert answer.index.tolist() == [[BACKGROUND] * 3] * 2
    assert answer.quality.tolist() == [[0.0] * 3] * 2


def test_max_iou__without_candidates_is_empty():
    assert match(torch.zeros(2, 0, 4), random_boxes(2, 3, 0)).index.shape == (2, 0)


def test_max_iou__a_row_does_not_depend_on_its_batch():
    candidates, targets = random_boxes(3, 50, 2), random_boxes(3, 4, 3)
    together = match(candidates, targets)
    for row in range(3):
        alone = match(candidates[row : row + 1], targets[row : row + 1])
        assert torch.equal(together.index[row : row + 1], alone.index)


def test_max_iou__refuses_thresholds_in_the_wrong_order():
    with pytest.raises(ValidationError, match="`negative` lies above `positive`"):
        MaxIouConfig(positive=0.3, negative=0.5)
