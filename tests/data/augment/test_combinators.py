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


AWAY = {"type": "shift_x", "fraction": 1.0}
INVERT = {"type": "invert"}


def test_keep_boxes__an_image_that_would_lose_all_its_boxes_stays_as_it_is(make_raw, look):
    raw = make_raw(300, noise=True)
    assert not look(raw, AWAY).targets["view"].valid.all()
    kept = look(raw, {"type": "keep_boxes", "transforms": [AWAY, INVERT]})
    plain = look(raw).views["view"].pixels
    assert kept.targets["view"].valid.all()
    stays = (kept.views["view"].homography == torch.eye(3)).flatten(1).all(dim=1)
    assert 50 < stays.sum() < 250
    assert torch.equal(kept.targets["view"].boxes[stays], raw.targets.boxes[stays])
    assert torch.equal(kept.targets["view"].labels[stays], raw.targets.labels[stays])
    changed = (kept.views["view"].pixels != plain).flatten(1).any(dim=1)
    assert torch.equal(changed, ~stays)


def test_keep_boxes__keeps_what_was_drawn_before_it(make_raw, look):
    raw = make_raw(60)
    resize = {"type": "resize", "short": 140}
    stream = look(raw, resize, {"type": "keep_boxes", "transforms": [AWAY]})
    assert (stream.views["view"].sizes.amin(dim=1) == 140).all()
    assert stream.targets["view"].valid.all()


def test_keep_boxes__an_image_without_boxes_has_none_to_lose(make_raw, look):
    raw = make_raw(6, noise=True)
    raw.targets.valid[:] = False
    seen = look(raw, {"type": "keep_boxes", "transforms": [INVERT]}).views["view"].pixels
    assert torch.equal(seen, look(raw, INVERT).views["view"].pixels)


def test_nearest__shows_gray_levels_of_the_image_alone(make_raw, look):
    raw = make_raw(12)
    turn = {"type": "rotate", "degrees": 30}
    mixed, copied = look(raw, turn).views["view"].pixels, look(raw, {"type": "nearest"}, turn).views["view"].pixels
    assert set(copied.unique().tolist()) == {0, 255}
    assert len(mixed.unique()) > 20
