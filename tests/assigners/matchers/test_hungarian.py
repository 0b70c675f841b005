from dataclasses import replace

import pytest
import torch

from ssodkit.assigners.matchers.answers import compare
from ssodkit.assigners.matchers.base import Question, ask
from ssodkit.assigners.matchers.hungarian import Hungarian, HungarianConfig, PairCost, costs_of_targets, pair_costs
from ssodkit.ops.coding import FrameCoder
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE

PROGRESS = Progress(0, 1)
# The example of the paper's cost, in image sides: four queries, two objects, three classes.
QUERIES = torch.tensor(
    [[0.50, 0.50, 0.40, 0.40], [0.52, 0.48, 0.36, 0.44], [0.20, 0.30, 0.20, 0.20], [0.80, 0.75, 0.30, 0.30]]
)
PROBS = torch.tensor([[0.30, 0.10, 0.05], [0.80, 0.10, 0.05], [0.10, 0.10, 0.60], [0.20, 0.70, 0.10]])
OBJECTS = torch.tensor([[0.50, 0.50, 0.40, 0.40], [0.22, 0.30, 0.20, 0.24]])
COSTS = torch.tensor([[-1.753178, 6.164890], [-2.573792, 6.182931], [6.097633, -1.508243], [4.954405, 8.419119]])


@pytest.fixture
def example(taught):
    """Four queries about an image 200 pixels wide and 100 high, and its two objects."""
    frame = torch.tensor([0.0, 0.0, 200.0, 100.0])
    candidates = Candidates(frame.expand(1, 4, 4), torch.ones(1, 4, dtype=torch.bool), lie=False)
    coder = FrameCoder()
    predictions = Predictions(candidates, PROBS.logit()[None], "sigmoid", QUERIES[None, :, None], coder)
    return predictions, taught(coder.decode(frame.expand(2, 4), OBJECTS)[None], torch.tensor([[0, 2]]))


def test_pair_costs__are_those_of_the_example(example):
    costs = pair_costs(HungarianConfig(), example[0], compare(*example))
    torch.testing.assert_close(costs[0], COSTS, rtol=0, atol=2e-6)


def test_costs_of_targets__are_those_of_the_pairs_that_cost_least(example, host_questions):
    predictions, targets = example
    with host_questions() as asked:
        costs = costs_of_targets(PairCost(), predictions, targets)
    torch.testing.assert_close(costs, torch.tensor([[-2.573792, -1.508243]]), rtol=0, atol=2e-6)
    assert costs.sum().item() == pytest.approx(-4.082035, abs=4e-6)
    assert asked == {"ssodkit::least_cost": 1}
    second = targets.where(torch.tensor([[False, True]]))
    assert costs_of_targets(PairCost(), predictions, second).isinf().tolist() == [[True, False]]


def test_hungarian__a_perfect_box_loses_to_a_surer_class(example):
    found = Hungarian(HungarianConfig())(*example, PROGRESS)
    assert found.index.tolist() == [[BACKGROUND, 0, 1, BACKGROUND]]
    torch.testing.assert_close(found.quality[0, :2], torch.tensor([1.0, 0.825688]), rtol=0, atol=1e-6)


def test_hungarian__answers_all_questions_of_a_step_in_one_copy(example, host_questions):
    cheap, dear = Hungarian(HungarianConfig()), Hungarian(HungarianConfig(class_cost=0.0))
    first = Question(cheap, *example)
    some = replace(example[0], candidates=replace(example[0].candidates, valid=torch.tensor([[True, False] * 2])))
    questions = [first, Question(dear, *example), Question(cheap, some, example[1])]
    with host_questions() as asked:
        found = ask(questions, PROGRESS)
    assert [one.index.tolist() for one in found] == [
        [[BACKGROUND, 0, 1, BACKGROUND]],
        [[0, BACKGROUND, 1, BACKGROUND]],
        [[0, IGNORE, 1, IGNORE]],
    ]
    assert asked == {"ssodkit::least_cost": 1}
