import pytest
import torch

from ssodkit.ops.ranks import bin_at_place, bin_of, count_scores

BINS = 1000
CLASS_0 = [0.98, 0.95, 0.91, 0.88, 0.84, 0.80, 0.74, 0.69, 0.61, 0.55, 0.48, 0.40, 0.33, 0.21, 0.09, 0.03]
CLASS_1 = [0.99, 0.97, 0.90, 0.83, 0.77, 0.70, 0.64, 0.52, 0.45, 0.36, 0.30, 0.24, 0.18, 0.12, 0.08]


def histogram(*classes):
    scores = torch.tensor([[score for scores in classes for score in scores]])
    labels = torch.tensor([[label for label, scores in enumerate(classes) for _ in scores]], dtype=torch.int64)
    return count_scores(scores, labels, torch.ones_like(labels, dtype=torch.bool), len(classes), BINS)


@pytest.mark.parametrize("score", [0.0, 0.001, 0.33, 0.57, 0.7, 0.999])
def test_bin_of__a_score_at_the_beginning_of_a_bin_lies_in_it(score):
    assert bin_of(torch.tensor([score]), BINS).tolist() == [round(score * BINS)]


def test_bin_of__one_lies_in_the_last_bin():
    assert bin_of(torch.tensor([1.0]), BINS).tolist() == [BINS - 1]


def test_bin_at_place__of_the_published_example():
    """LabelMatch, arXiv:2206.06608: indices 2 and 12 of class 0, 5 and 28 of class 1, which has 15 scores."""
    seen = histogram(CLASS_0, CLASS_1, [])
    assert (bin_at_place(seen, torch.tensor([2.4, 5.6, 0.4])) / BINS).tolist() == pytest.approx([0.91, 0.70, 0.0])
    assert (bin_at_place(seen, torch.tensor([12.0, 28.0, 2.0])) / BINS).tolist() == pytest.approx([0.33, 0.08, 0.0])


def test_bin_at_place__agrees_with_sorting():
    scores = torch.rand(3, 200, generator=torch.Generator().manual_seed(0))
    ordered = scores.sort(dim=1, descending=True).values
    seen = histogram(*scores.tolist())
    for place in (0, 1, 57, 199):
        expected = bin_of(ordered[:, place], BINS)
        assert torch.equal(bin_at_place(seen, torch.full((3,), float(place))), expected)


def test_count_scores__leaves_out_what_is_not_counted():
    scores, labels = torch.tensor([[0.5, 0.5, 0.2]]), torch.tensor([[1, 1, 0]])
    counts = count_scores(scores, labels, torch.tensor([[True, False, True]]), 2, 10)
    assert counts.nonzero().tolist() == [[0, 2], [1, 5]]
    assert counts.sum() == 2


def test_count_scores__of_no_detection():
    empty = torch.zeros(2, 0)
    assert not count_scores(empty, empty.long(), empty.bool(), 3, 10).any()
