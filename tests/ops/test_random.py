"""Draws depend on the key, the purpose and the place, and on nothing else; they are as even as they claim."""

import math

import pytest
import torch
from scipy import stats

from ssodkit.ops.random import derive_keys, integers, make_key, normal, split_keys, uniform


def keys_of(count: int) -> torch.Tensor:
    return torch.tensor([make_key("test", place) for place in range(count)], dtype=torch.int64)


def test_make_key__is_the_same_on_every_machine():
    assert make_key(0, "weak", 7) == 3842634217447993542


def test_make_key__tells_numbers_from_text_and_parts_from_their_sum():
    assert len({make_key(1), make_key("1"), make_key(1, 1), make_key("11"), make_key(11)}) == 5


def finalizer(value: int) -> int:
    """MurmurHash3's 64-bit finalizer, in Python's integers."""
    for constant in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        value = ((value ^ (value >> 33)) * constant) % 2**64
    return value ^ (value >> 33)


def test_uniform__is_the_hash_that_its_docstring_describes():
    keys = [1, 2**62 + 5, -3]
    for key, drawn in zip(keys, uniform(torch.tensor(keys), (4,), "a").tolist(), strict=True):
        stream = finalizer((key ^ make_key("a")) % 2**64)
        for counter, number in enumerate(drawn):
            bits = finalizer((finalizer((counter * 0x9E3779B97F4A7C15 + stream) % 2**64) + stream) % 2**64)
            assert number == (bits >> 40) / 2**24


def test_uniform__a_row_does_not_depend_on_its_batch():
    keys = keys_of(5)
    assert torch.equal(uniform(keys, (3, 2), "a")[3:4], uniform(keys[3:4], (3, 2), "a"))


def test_uniform__a_longer_shape_begins_with_a_shorter_one():
    keys = keys_of(2)
    assert torch.equal(uniform(keys, (100,), "a")[:, :7], uniform(keys, (7,), "a"))


def test_uniform__is_even_over_places_and_over_keys():
    over_places = uniform(keys_of(1), (20000,), "a")[0]
    over_keys = uniform(torch.arange(20000), (), "a")
    assert stats.kstest(over_places.numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(over_keys.numpy(), "uniform").pvalue > 0.01
    assert float(over_keys.min()) >= 0.0
    assert float(over_keys.max()) < 1.0


def test_uniform__purposes_are_unrelated():
    keys = torch.arange(20000)
    first, second = uniform(keys, (), "a"), uniform(keys, (), "b")
    assert abs(stats.pearsonr(first.numpy(), second.numpy()).statistic) < 0.03


@pytest.mark.parametrize("draw", [uniform, normal])
def test_draws__nothing_is_drawn_for_no_key_and_no_place(draw):
    assert draw(keys_of(0), (3, 2), "a").shape == (0, 3, 2)
    assert draw(keys_of(2), (0, 4), "a").shape == (2, 0, 4)


def test_normal__is_normal():
    drawn = normal(keys_of(4), (5000,), "a")
    assert torch.isfinite(drawn).all()
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 0.01


def test_integers__all_numbers_are_equally_likely_ends_included():
    drawn = integers(torch.arange(18000), (), 1, 9, "level")
    counts = torch.bincount(drawn, minlength=11)
    assert counts[0] == counts[10] == 0
    assert stats.chisquare(counts[1:10].numpy()).pvalue > 0.01


def test_integers__one_number_is_no_choice():
    assert integers(keys_of(3), (2,), -4, -4, "a").tolist() == [[-4, -4]] * 3


def test_integers__an_empty_range_is_refused():
    with pytest.raises(ValueError, match="from 3 to 2"):
        integers(keys_of(1), (), 3, 2, "a")


def test_derive_keys__names_give_unrelated_keys():
    keys = torch.arange(20000)
    weak, strong = derive_keys(keys, "weak"), derive_keys(keys, "strong")
    assert len(torch.unique(torch.cat([keys, weak, strong]))) == 60000
    first, second = uniform(weak, (), "a"), uniform(strong, (), "a")
    assert abs(stats.pearsonr(first.numpy(), second.numpy()).statistic) < 0.03
    assert stats.kstest(first.numpy(), "uniform").pvalue > 0.01


def test_split_keys__gives_distinct_keys_and_longer_rows_begin_with_shorter_ones():
    keys = keys_of(3)
    many = split_keys(keys, 1000, "lines")
    assert torch.equal(many[:, :10], split_keys(keys, 10, "lines"))
    assert len(torch.unique(many)) == 3000


def test_normal__three_draws_in_a_row_have_no_memory():
    drawn = normal(torch.arange(30000), (3,), "a").numpy()
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert abs(stats.pearsonr(drawn[:, first], drawn[:, second]).statistic) < 4 / math.sqrt(30000)
