import torch
import torchvision

from ssodkit.assigners.selectors.base import SelectorConfig, Suppress
from ssodkit.assigners.selectors.shortlist import is_among_best, shortlist, stands_out, survives
from ssodkit.assigners.selectors.soft_teacher import SoftTeacherSelectorConfig
from ssodkit.structures.predictions import Detections


def detections(boxes, confidence, labels=None):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    shape = boxes.shape[:2]
    return Detections(
        boxes=boxes,
        labels=torch.zeros(shape, dtype=torch.int64) if labels is None else torch.tensor(labels),
        valid=torch.ones(shape, dtype=torch.bool),
        scores={"confidence": torch.tensor(confidence)},
    )


def config(**fields) -> SelectorConfig:
    return SoftTeacherSelectorConfig(**fields)


PAIR = [[[0, 0, 10, 10], [0, 0, 10, 9]]]  # IoU 0.9


def test_is_among_best__counts_listed_boxes_only():
    found = detections([[[0, 0, 1, 1]] * 4], [[0.5, 0.9, 0.7, 0.8]])
    listed = torch.tensor([[True, False, True, True]])
    assert (listed & is_among_best(found, listed, 2)).tolist() == [[False, False, True, True]]


def test_is_among_best__the_first_row_wins_a_tie():
    found = detections([[[0, 0, 1, 1]] * 3], [[0.5, 0.5, 0.5]])
    assert is_among_best(found, found.valid, 2).tolist() == [[True, True, False]]


def test_survives__the_less_confident_of_two_overlapping_boxes_goes():
    found = detections(PAIR, [[0.6, 0.9]])
    assert survives(found, found.valid, Suppress()).tolist() == [[False, True]]


def test_survives__within_classes_leaves_boxes_of_other_classes():
    found = detections(PAIR, [[0.6, 0.9]], labels=[[0, 1]])
    assert survives(found, found.valid, Suppress(across_classes=False)).tolist() == [[True, True]]


def test_survives__boxes_of_other_images_suppress_nothing():
    found = detections([[PAIR[0][0]], [PAIR[0][1]]], [[0.6], [0.9]])
    assert survives(found, found.valid, Suppress()).tolist() == [[True], [True]]


def test_survives__an_unlisted_box_suppresses_nothing():
    found = detections(PAIR, [[0.6, 0.9]])
    assert survives(found, torch.tensor([[True, False]]), Suppress())[0, 0]


def test_survives__is_torchvisions_nms():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 60, 2, generator=generator) * 40.0
    boxes = torch.cat([corner, corner + 5.0 + 20.0 * torch.rand(2, 60, 2, generator=generator)], dim=-1)
    confidence = torch.rand(2, 60, generator=generator)
    found = detections(boxes.tolist(), confidence.tolist())
    kept = survives(found, found.valid, Suppress(iou=0.4))
    for image in range(2):
        theirs = torchvision.ops.nms(boxes[image], confidence[image], 0.4)
        assert 0 < len(theirs) < 60
        assert kept[image].nonzero()[:, 0].tolist() == sorted(theirs.tolist())


def test_shortlist__counts_the_best_after_suppression():
    found = detections([[[0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]]], [[0.9, 0.8, 0.7]])
    listed, passed = shortlist(found, config(at_most=2, suppress=Suppress()))
    assert listed.tolist() == [[True, False, True]]
    assert {name: mask.tolist() for name, mask in passed.items()} == {
        "suppress": [[True, False, True]],
        "at_most": [[True, False, True]],
    }


def test_shortlist__nothing_found_lists_nothing():
    listed, passed = shortlist(Detections.empty(2), config(suppress=Suppress()))
    assert listed.shape == (2, 0)
    assert passed["at_most"].shape == (2, 0)


SCORES = [0.92, 0.61, 0.33, 0.12, 0.05, 0.02]


def test_stands_out__reaches_mean_and_deviation_of_n_less_1():
    confidence = torch.tensor([[*SCORES, 0.99]])
    listed = torch.tensor([[True] * 6 + [False]])
    for limit, expected in ((0.700632, False), (0.700634, True)):
        changed = confidence.clone()
        changed[0, 6] = limit  # is not listed: it changes no number, and is compared with them
        assert stands_out(changed, listed, 1.0)[0].tolist() == [True] + [False] * 5 + [expected]


def test_stands_out__an_only_one_does_and_equal_ones_do():
    confidence = torch.tensor([[0.3, 0.1, 0.2], [0.3, 0.3, 0.3], [0.3, 0.2, 0.1]])
    listed = torch.tensor([[False, True, False], [True, True, True], [False, False, False]])
    found = listed & stands_out(confidence, listed, 1.0)
    assert found.tolist() == listed.tolist()
    assert stands_out(confidence[:, :0], listed[:, :0], 1.0).shape == (3, 0)


def test_shortlist__counts_deviations_among_those_that_are_left():
    boxes = [[[0, 0, 10, 10]] * 2 + [[20 * place, 0, 20 * place + 10, 10] for place in range(1, 6)]]
    found = detections(boxes, [[0.92, 0.91, *SCORES[1:]]])
    listed, passed = shortlist(found, config(suppress=Suppress(), deviations=1.0))
    assert listed.tolist() == [[True] + [False] * 6]
    assert list(passed) == ["suppress", "at_most", "deviations"]
    assert passed["deviations"] is listed
