import torch

from ssodkit.ops.rows import best_of_groups, class_columns, first_rows, take_rows


def test_take_rows__picks_per_image_and_keeps_what_follows():
    values = torch.arange(12).reshape(2, 3, 2)
    index = torch.tensor([[2, 0], [1, 1]])
    assert take_rows(values, index).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    assert take_rows(values[..., 0], index).tolist() == [[4, 0], [8, 8]]


def test_first_rows__keeps_the_order_and_fills_up():
    mask = torch.tensor([[False, True, False, True, True], [False, False, True, False, False]])
    rows = first_rows(mask, 2)
    assert rows[0].tolist() == [1, 3]
    assert rows[1, 0] == 2
    assert not mask[1, rows[1, 1]]


def test_first_rows__are_never_more_than_there_are():
    assert first_rows(torch.zeros(2, 3, dtype=torch.bool), 9).shape == (2, 3)
    assert first_rows(torch.zeros(2, 0, dtype=torch.bool), 9).shape == (2, 0)


def test_class_columns__picks_classes_per_image_and_lays_them_in_rows():
    values = torch.arange(12).reshape(2, 2, 3).float()
    found = class_columns(values, torch.tensor([[2, 0], [1, 1]]))
    assert found.tolist() == [[[2.0, 5.0], [0.0, 3.0]], [[7.0, 10.0], [7.0, 10.0]]]
    assert found.is_contiguous()
    assert class_columns(values, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, 2)


def test_best_of_groups__picks_within_each_group_best_first():
    scores = torch.tensor([[1.0, 3.0, 2.0, 9.0], [5.0, 4.0, 6.0, 0.0]])
    best, places = best_of_groups(scores, (3, 1), 2)
    assert best.tolist() == [[3.0, 2.0, 9.0], [6.0, 5.0, 0.0]]
    assert places.tolist() == [[1, 2, 3], [2, 0, 3]]
    assert best_of_groups(scores[:0], (3, 1), 2)[0].shape == (0, 3)
