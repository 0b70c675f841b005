import torch

from ssodkit.ops.collect import gather_over_processes, sum_over_processes


def test_sum_over_processes__of_one_process_is_its_own_number():
    numbers = torch.tensor([1.0, 2.0])
    assert sum_over_processes(numbers) is numbers


def test_gather_over_processes__of_one_process_is_its_own_number_alone():
    assert gather_over_processes(torch.tensor([1.0, 2.0])).tolist() == [[1.0, 2.0]]
