import torch

from ssodkit.engine.sheet import pseudo_labels
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Report, Selection
from ssodkit.structures.teaching import Supervision, Targets


def test_pseudo_labels__show_the_confidence_of_the_detection_they_are(make_view):
    """Two classes found at one place, of which the second is taught, and a third that is ignored."""
    boxes = torch.tensor([[[1.0, 1.0, 9.0, 9.0]]]).repeat(1, 3, 1)
    labels, valid = torch.tensor([[0, 1, 2]]), torch.tensor([[False, True, True]])
    found = Detections(boxes, labels, torch.ones_like(valid), {"confidence": torch.tensor([[0.5, 0.9, 0.6]])})
    targets = Targets(boxes, labels, valid, torch.tensor([[0.0, 1.0, 0.0]]), torch.zeros_like(valid))
    shown = pseudo_labels(
        Report(found, Selection(Supervision.uniform(targets, Progress(0, 1)), {}), make_view("weak", [1]))
    )
    assert shown.valid.tolist() == [[False, True, False]]
    assert round(shown.confidence[0, 1].item(), 6) == 0.9


def test_pseudo_labels__of_nothing_found_are_none(make_view):
    targets, found = Targets.empty(2), Detections.empty(2)
    shown = pseudo_labels(
        Report(found, Selection(Supervision.uniform(targets, Progress(0, 1)), {}), make_view("weak", [1, 2]))
    )
    assert shown.boxes.shape == (2, 0, 4)
