from dataclasses import replace

import pytest
import torch

from ssodkit.structures.predictions import Candidates, Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.records import join, map_tensors
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View


def targets(*labels_of_images):
    length = max(map(len, labels_of_images))
    padded = torch.tensor([[*labels, *[0] * (length - len(labels))] for labels in labels_of_images])
    valid = torch.tensor([[place < len(labels) for place in range(length)] for labels in labels_of_images])
    count = len(labels_of_images)
    return Targets(torch.ones(count, length, 4), padded, valid, torch.ones(count, length), torch.zeros_like(valid))


def view(side, ids):
    count = len(ids)
    return View(
        pixels=torch.full((count, 3, side, side), 255, dtype=torch.uint8),
        sizes=torch.full((count, 2), side),
        homography=torch.eye(3).repeat(count, 1, 1),
        image_ids=torch.tensor(ids),
        keys=torch.tensor(ids),
    )


def test_record__a_slice_is_a_view_of_the_rows():
    both = targets([1, 2], [3])
    second = both[1:]
    assert second.labels.tolist() == [[3, 0]]
    second.labels[0, 0] = 7
    assert both.labels[1, 0] == 7


def test_record__an_index_list_is_refused():
    with pytest.raises(TypeError, match="slice"):
        targets([1], [2])[[0]]


def test_record__what_is_shared_stays_shared():
    ground_truth = targets([1, 2], [3])
    supervision = Supervision(ground_truth, ground_truth, targets([1], []), Progress(0, 1))
    for changed in (supervision[:1], supervision.to("cpu"), supervision.detach(), join([supervision, supervision])):
        assert changed.objectness is changed.classes
        assert changed.boxes is not changed.classes


def test_record__detach_cuts_the_graph():
    learned = replace(targets([1]), weight=torch.ones(1, 1, requires_grad=True))
    assert not learned.detach().weight.requires_grad


def test_join__pads_rows_with_what_is_not_valid():
    joined = join([targets([1, 2]), targets([3])])
    assert joined.labels.tolist() == [[1, 2], [3, 0]]
    assert joined.valid.tolist() == [[True, True], [True, False]]
    assert joined.boxes.shape == (2, 2, 4)


@pytest.mark.parametrize(("claims", "holds"), [((True, True), True), ((True, False), False)])
def test_join__a_claim_about_all_rows_holds_where_it_holds_in_each_part(claims, holds):
    joined = join([replace(targets([1]), all_teach=claim) for claim in claims])
    assert joined.all_teach is holds


def test_join__pads_canvases_with_black_right_and_below():
    joined = join([view(4, [1]), view(2, [2, 3])])
    assert joined.pixels.shape == (3, 3, 4, 4)
    assert joined.pixels[1, 0].tolist() == [[255, 255, 0, 0], [255, 255, 0, 0], [0] * 4, [0] * 4]
    assert joined.image_ids.tolist() == [1, 2, 3]


def test_join__of_empty_rows_keeps_the_images():
    joined = join([Targets.empty(2), Targets.empty(1, length=3)])
    assert joined.valid.shape == (3, 3)
    assert not joined.valid.any()


def test_join__of_one_is_itself():
    only = targets([1])
    assert join([only]) is only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": None}, "cannot join Tensor and NoneType in one place"),
        ({"lengths": (2, 2)}, "3 and 2 differ"),
    ],
)
def test_join__drops_nothing_that_only_some_have(change, message: str):
    boxes, valid = torch.zeros(1, 4, 4), torch.ones(1, 4, dtype=torch.bool)
    level, stride = torch.zeros(1, 4, dtype=torch.int64), torch.ones(1, 4)
    candidates = Candidates(boxes, valid, level, stride, lengths=(3, 1))
    assert join([candidates, candidates]).lengths == (3, 1)
    with pytest.raises(ValueError, match=message):
        join([candidates, replace(candidates, **change)])


def test_join__drops_no_name_that_only_some_have():
    found = Detections.empty(1, length=2)
    with pytest.raises(ValueError, match="whose parts are confidence and confidence, box_jitter"):
        join([found, found.with_score("box_jitter", found.confidence)])


def test_map_tensors__reaches_mappings_and_tuples_and_leaves_the_rest():
    record = {"a": (torch.ones(2), "text"), "b": [torch.zeros(1)], "c": 3}
    doubled = map_tensors(record, lambda tensor: tensor * 2)
    assert doubled["a"][0].tolist() == [2.0, 2.0]
    assert (doubled["a"][1], doubled["c"]) == ("text", 3)
    assert isinstance(doubled["b"], list)
