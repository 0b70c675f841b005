from dataclasses import replace

import pytest
import torch

from ssodkit.structures.run import Losses, RareFactor, Term


def term(total: float, denominator: float = 1.0, **fields) -> Term:
    return Term(torch.tensor(total), torch.tensor(denominator), **fields)


def values(losses: Losses, processes: int = 1) -> dict[str, float]:
    return {name: value.item() for name, value in losses.values(losses.denominators(), processes).items()}


def test_losses__a_term_is_its_sum_over_its_denominator():
    assert values(Losses({"roi/class": term(6.0, 4.0)})) == {"roi/class": 1.5}


def test_losses__a_denominator_never_falls_below_its_floor():
    assert values(Losses({"roi/class": term(0.7, 0.3)})) == {"roi/class": pytest.approx(0.7)}
    assert values(Losses({"roi/class": term(0.7, 0.3, floor=0.1)})) == {"roi/class": pytest.approx(0.7 / 0.3)}


def test_losses__the_sum_is_multiplied_by_the_processes_whose_gradients_are_averaged():
    assert values(Losses({"roi/class": term(6.0, 4.0)}), processes=2) == {"roi/class": 3.0}


def test_losses__soft_teachers_total():
    names = ("rpn/class", "rpn/box", "roi/class", "roi/box")
    labeled = Losses(dict(zip(names, map(term, (0.05, 0.04, 0.5, 0.3)), strict=True))).named("labeled")
    unlabeled = Losses(dict(zip(names, map(term, (0.03, 0.02, 0.4, 0.1)), strict=True))).named("unlabeled")
    assert sum(values(labeled + unlabeled * 4.0).values()) == pytest.approx(3.090000, abs=5e-7)


def test_losses__unbiased_teachers_total_leaves_out_the_unlabeled_boxes():
    names = ("rpn/class", "rpn/box", "roi/class", "roi/box")
    labeled = Losses(dict(zip(names, map(term, (0.10, 0.05, 0.40, 0.20)), strict=True))).named("labeled")
    factors = (1.0, 0.0, 1.0, 0.0)
    terms = [
        replace(term(value), factor=factor) for value, factor in zip((0.08, 0.07, 0.30, 0.25), factors, strict=True)
    ]
    unlabeled = Losses(dict(zip(names, terms, strict=True)))
    total = values(labeled + unlabeled.named("unlabeled") * 4.0)
    assert sum(total.values()) == pytest.approx(2.27, abs=5e-7)
    assert total["unlabeled/rpn/box"] == total["unlabeled/roi/box"] == 0.0


def test_losses__of_one_name_cannot_be_added():
    with pytest.raises(ValueError, match="two losses have the name roi/box"):
        Losses({"roi/box": term(1.0), "a": term(1.0)}) + Losses({"roi/box": term(2.0)})


def test_losses__named_puts_a_prefix_before_each_name():
    assert list(Losses({"roi/box": term(1.0)}).named("unlabeled")) == ["unlabeled/roi/box"]


def test_losses__denominators_summed_over_processes_give_the_gradient_of_one_process():
    weight = torch.tensor(2.0, requires_grad=True)
    parts, denominators = (weight * 3, weight * 5), (4.0, 12.0)
    (one,) = torch.autograd.grad((parts[0] + parts[1]) / sum(denominators), weight, retain_graph=True)
    gradients = []
    for part, denominator in zip(parts, denominators, strict=True):
        value = Losses({"a": Term(part, torch.tensor(denominator))}).values(torch.tensor([16.0]), processes=2)["a"]
        gradients += torch.autograd.grad(value, weight, retain_graph=True)
    assert (gradients[0] + gradients[1]) / 2 == one


def test_losses__a_process_without_any_target_adds_nothing():
    empty = Losses({"roi/box": term(0.0, 0.0)})
    assert empty.values(torch.tensor([8.0]), processes=2)["roi/box"].item() == 0.0


def rare(counted: float, images: float, below: float = 0.5, factor: float = 0.01) -> RareFactor:
    return RareFactor(torch.tensor(counted), torch.tensor(images), below, factor)


@pytest.mark.parametrize(("counted", "images", "factor"), [(1.0, 4.0, 0.01), (2.0, 4.0, 1.0), (0.0, 0.0, 1.0)])
def test_losses__where_less_than_half_of_the_images_count_a_rare_factor_acts(counted, images, factor):
    losses = Losses({"roi/box": term(3.0, 2.0)}).where_rare(rare(counted, images)) * 2.0
    assert values(losses) == {"roi/box": pytest.approx(3.0 * factor)}


def test_losses__a_rare_factor_is_decided_by_all_processes_together():
    mine = Losses({"roi/box": term(3.0)}).where_rare(rare(0.0, 2.0))
    others = Losses({"roi/box": term(3.0)}).where_rare(rare(2.0, 2.0))
    both = mine.denominators() + others.denominators()
    assert mine.values(both, processes=2)["roi/box"] == others.values(both, processes=2)["roi/box"] == 3.0


def test_losses__a_rare_factor_reaches_its_own_terms_alone():
    unlabeled = Losses({"roi/class": term(5.0), "roi/box": term(7.0)}).named("unlabeled").where_rare(rare(0.0, 4.0))
    losses = Losses({"roi/class": term(3.0)}).named("labeled") + unlabeled
    assert len(losses.denominators()) == 3 + 2
    assert values(losses) == pytest.approx(
        {"labeled/roi/class": 3.0, "unlabeled/roi/class": 0.05, "unlabeled/roi/box": 0.07}
    )


def test_losses__of_nothing_are_nothing():
    assert list(Losses() + Losses({"roi/box": term(1.0)})) == ["roi/box"]
    assert list(Losses().named("labeled") * 2.0) == []
