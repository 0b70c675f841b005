"""KL of what is said from what another network says; numbers of Humble Teacher's equations, worked out by hand."""

import pytest
import torch
from lesson import answers_of
from torch.nn.functional import kl_div

from ssodkit.assigners.regions.everything import EverythingConfig
from ssodkit.detectors.criteria.kl import KlConfig
from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.lessons import AnswerLesson
from ssodkit.structures.teaching import BACKGROUND

THEIRS = torch.tensor([[[2.0], [-1.0], [0.0]]], dtype=torch.float64)
MINE = torch.tensor([[[1.0], [-2.0], [0.5]]], dtype=torch.float64)


def divergences(mine: torch.Tensor, theirs: torch.Tensor, activation: str = "sigmoid", **fields) -> torch.Tensor:
    others = answers_of(theirs, activation)
    lesson = AnswerLesson(EverythingConfig()(others), others.num_classes, others)
    return KlConfig(**fields)(answers_of(mine, activation), lesson, torch.ones(mine.shape[:2]))


def test_kl__of_one_logit_has_both_outcomes():
    losses = divergences(MINE, THEIRS)
    torch.testing.assert_close(losses, torch.tensor([[0.067131, 0.082608, 0.030930]]).double(), rtol=0, atol=1e-6)
    assert (losses.mean().item(), losses.sum().item()) == pytest.approx((0.060223, 0.180668), abs=1e-6)
    theirs, mine = THEIRS.sigmoid(), MINE.sigmoid()
    one_outcome = (theirs * (theirs / mine).log())[..., 0]
    torch.testing.assert_close(one_outcome, torch.tensor([[0.164122, 0.218829, -0.109535]]).double(), rtol=0, atol=1e-6)


def test_kl__of_a_softmax_is_theirs_first():
    theirs = torch.tensor([[[0.537815, 0.261987, 0.115286, 0.084912]]], dtype=torch.float64).log()
    mine = torch.tensor([[[1.0, 0.0, 0.5, 0.0]]], dtype=torch.float64)
    assert divergences(mine, theirs, "softmax").item() == pytest.approx(0.112713, abs=1e-6)
    assert divergences(theirs, mine, "softmax").item() == pytest.approx(0.127200, abs=1e-6)
    alone = torch.tensor([[[2.0, 0.5, 0.0, -1.0]]], dtype=torch.float64)
    assert divergences(mine, alone, "softmax").item() == pytest.approx(0.214697, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_kl__equals_torch(activation: str, temperature: float):
    mine, theirs = 3.0 * torch.randn(2, 2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if activation == "softmax":
        first, second = ((logits / temperature).log_softmax(dim=-1) for logits in (mine, theirs))
    else:  # a sigmoid is a softmax over the logit and 0
        first, second = (
            (torch.stack([logits, torch.zeros_like(logits)], dim=-1) / temperature).log_softmax(dim=-1)
            for logits in (mine, theirs)
        )
    expected = kl_div(first, second, reduction="none", log_target=True).flatten(2).sum(dim=-1)
    torch.testing.assert_close(divergences(mine, theirs, activation, temperature=temperature), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_kl__of_the_same_is_zero_with_a_finite_gradient_however_sure(activation: str):
    logits = torch.tensor([[[200.0, -200.0, 0.0], [3.0, -1.0, 0.5]]], requires_grad=True)
    losses = divergences(logits, logits.detach(), activation)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.zeros(1, 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_kl__of_half_precision_is_worked_out_in_fp32(activation: str):
    mine, theirs = torch.randn(2, 1, 5, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    losses = divergences(mine, theirs, activation)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, divergences(mine.float(), theirs.float(), activation))


def test_kl__who_learns_nothing_of_them_learns_that_nothing_is_there():
    theirs = answers_of(torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)), "softmax")
    plan = EverythingConfig()(theirs)
    plan.index[0, 1] = BACKGROUND
    mine = answers_of(torch.zeros(1, 2, 4), "softmax")
    losses = KlConfig()(mine, AnswerLesson(plan, 3, theirs), torch.ones(1, 2))
    torch.testing.assert_close(losses[0, 1], torch.tensor(4.0).log())


def test_kl__of_nothing_is_empty():
    assert divergences(torch.zeros(2, 0, 3), torch.zeros(2, 0, 3), "softmax").shape == (2, 0)


@pytest.mark.parametrize(("term", "criterion", "other"), [("class", "kl", "softmax"), ("box", "codes", "l1")])
def test_kl__and_codes_are_refused_where_boxes_teach(term: str, criterion: str, other: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe("supervised", [f"detector.stages.roi.terms.{term}.criterion={{type: {criterion}}}"])
    (said,) = str(caught.value).splitlines()
    assert f"'{criterion}' needs 'other_answers', which the stage 'roi' of 'faster_rcnn' does not provide" in said
    assert "provided by: method 'imitation'" in said
    assert f"'{other}'" in said.partition("without this need: ")[2]
