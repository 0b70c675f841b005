"""Combinators choose for each image on its own, and as often as they say."""

import pytest
import torch

from ssodkit.data.augment.base import draw_view

SIZES = torch.full((3000, 2), 50)


def drawn_by(parse, *written: dict):
    return draw_view([parse(transform) for transform in written], SIZES, torch.arange(3000))


def sequence_of(drawn, row: int) -> list[str]:
    """The types of the pixel operations of one row, in order; `fill` where the fill is laid."""
    return [step.transform.type if step.transform else "fill" for step in drawn.steps if row in step.rows]


def test_one_of__each_image_draws_exactly_one_all_equally_likely(parse):
    names = ["invert", "gray", "equalize"]
    drawn = drawn_by(parse, {"type": "one_of", "transforms": [{"type": name} for name in names]})
    assert torch.equal(torch.cat([step.rows for step in drawn.steps]).sort().values, torch.arange(3000))
    assert [len(step.rows) for step in drawn.steps] == pytest.approx([1000] * 3, abs=100)


def test_in_random_order__each_image_draws_all_in_an_order_of_its_own(parse):
    names = ["invert", "gray", "equalize"]
    drawn = drawn_by(parse, {"type": "in_random_order", "transforms": [{"type": name} for name in names]})
    orders = [tuple(sequence_of(drawn, row)) for row in range(300)]
    assert all(sorted(order) == sorted(names) for order in orders)
    assert len(set(orders)) == 6
    assert min(orders.count(order) for order in set(orders)) > 25


def test_in_random_order__color_before_or_after_geometry(parse):
    drawn = drawn_by(parse, {"type": "in_random_order", "transforms": [{"type": "equalize"}, {"type": "rotate"}]})
    orders = [tuple(sequence_of(drawn, row)) for row in range(400)]
    assert set(orders) == {("equalize", "fill"), ("fill", "equalize")}
    assert 150 < orders.count(("equalize", "fill")) < 250


def test_sometimes__then_with_its_probability_otherwise_the_rest(parse):
    written = {"type": "sometimes", "probability": 0.3, "then": [{"type": "invert"}], "otherwise": [{"type": "gray"}]}
    drawn = drawn_by(parse, written)
    assert torch.equal(torch.cat([step.rows for step in drawn.steps]).sort().values, torch.arange(3000))
    assert [len(step.rows) for step in drawn.steps] == pytest.approx([900, 2100], abs=100)


@pytest.mark.parametrize(("probability", "names"), [(0.0, []), (1.0, ["invert"])])
def test_sometimes__never_and_always(parse, probability, names):
    drawn = drawn_by(parse, {"type": "sometimes", "probability": probability, "then": [{"type": "invert"}]})
    assert [step.transform.type for step in drawn.steps] == names


def test_combinators__a_choice_tells_nothing_about_what_is_drawn_next(parse):
    """Of the images that drew the first branch, half are flipped, and half of those that drew the other."""
    branch = [{"type": "invert"}, {"type": "flip"}]
    drawn = drawn_by(parse, {"type": "sometimes", "probability": 0.5, "then": branch, "otherwise": branch})
    flipped = drawn.homography[:, 0, 0] < 0
    for step in drawn.steps:
        assert 0.44 < flipped[step.rows].float().mean() < 0.56


@pytest.mark.parametrize("name", ["one_of", "in_random_order"])
def test_combinators__an_empty_list_is_refused(parse, name):
    with pytest.raises(ValueError, match="at least 1 item"):
        parse({"type": name, "transforms": []})
