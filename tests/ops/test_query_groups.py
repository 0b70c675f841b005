import torch

from ssodkit.ops.denoising import blocked_between, lay_slots
from ssodkit.ops.query_groups import blocked_beside


def test_blocked_beside__of_the_example():
    """Two images, of 3 and 1 mined boxes and 2 and 0 that teach: five groups of 3, then 50 of 4, then 900 queries."""
    group, valid = torch.arange(15)[None] // 3, torch.ones(1, 15, dtype=torch.bool)
    beside = blocked_beside(group, valid, torch.ones(1, 900, dtype=torch.bool))
    slots = lay_slots(torch.tensor([2]), torch.tensor([2]), pairs=100, slots=200)
    own = blocked_between(slots, 900)
    whole = torch.ones(1, 1115, 1115, dtype=torch.bool)  # as one mask, in which they do not see one another
    whole[:, :15, :15], whole[:, :15, 215:] = beside[..., :15], beside[..., 15:]
    whole[:, 15:, 15:] = own
    assert [(~whole[0, row]).sum().item() for row in (0, 15, 215)] == [903, 904, 900]
    assert whole.sum() == 238_880


def test_blocked_beside__nobody_sees_what_is_not_valid():
    group, valid = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[True, False, True, True]])
    blocked = blocked_beside(group, valid, torch.tensor([[True, False]]))
    seen = [[0, 4], [0, 4], [2, 3, 4], [2, 3, 4]]
    assert [(~row).nonzero().flatten().tolist() for row in blocked[0]] == seen
    assert blocked_beside(group[:, :0], valid[:, :0], torch.ones(1, 2, dtype=torch.bool)).shape == (1, 0, 2)
