import pytest
import torch
from torch import nn

from ssodkit.nn.shared_norm import SharedNorm


@pytest.mark.parametrize("cells", [(), (3, 2)])
def test_shared_norm__is_batch_normalization_of_the_rows_that_count(cells):
    torch.manual_seed(0)
    features = torch.randn(6, 4, *cells, requires_grad=True)
    norm, theirs = SharedNorm(4), (nn.BatchNorm2d if cells else nn.BatchNorm1d)(4)
    for own in (norm, theirs):
        nn.init.normal_(own.weight, generator=torch.Generator().manual_seed(1))
        nn.init.normal_(own.bias, generator=torch.Generator().manual_seed(2))
    counts = torch.tensor([True, True, False, True, False, True])
    answer = norm(features * counts.view(-1, *(1,) * (features.dim() - 1)), counts)[counts]
    expected = theirs(features[counts])
    torch.testing.assert_close(answer, expected)
    pull = torch.randn_like(expected)
    own, others = (torch.autograd.grad((each * pull).sum(), [features])[0] for each in (answer, expected))
    torch.testing.assert_close(own, others)


def test_shared_norm__of_no_row_that_counts_and_of_no_row_is_finite():
    norm = SharedNorm(4)
    for features in (torch.randn(3, 4, 2, 2, requires_grad=True), torch.zeros(0, 4, 2, 2, requires_grad=True)):
        answer = norm(features, torch.zeros(len(features), dtype=torch.bool))
        assert (answer == 0.0).all()
        answer.sum().backward()
        assert features.grad.isfinite().all()


def test_shared_norm__of_one_row_is_its_shift(host_questions):
    norm = SharedNorm(4)
    nn.init.constant_(norm.bias, 0.5)
    counts = torch.tensor([True])
    with host_questions() as asked:
        answer = norm(torch.randn(1, 4), counts)
    assert (answer == 0.5).all()
    assert not asked
