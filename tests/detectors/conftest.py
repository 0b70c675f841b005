"""A step of a teacher and a student, as far as a detector is asked in it."""

from collections import Counter

import pytest
import torch

from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision


@pytest.fixture
def questions_of_a_step(make_view, make_targets, host_questions):
    """A detector -> at what the host would wait for a GPU in its second step, with unequal target sets."""

    def count(detector) -> Counter:
        progress = Progress(0, 10)
        labeled, weak, strong = (make_view(name, [1, 2]) for name in ("labeled", "weak", "strong"))
        truth = Supervision.uniform(make_targets([[(4, 4, 28, 40, 0)], []]), progress)
        classes, boxes = make_targets([[(4, 4, 28, 40, 0)], []]), make_targets([[], [(30, 20, 56, 50, 2)]])
        pseudo = Supervision(classes, classes, boxes, progress)

        def step() -> None:
            with torch.no_grad():
                detector.detect(detector.predict(detector.extract(weak), proposals="training"))
            answers = predict_together(detector, [labeled, strong], [truth, pseudo])
            for mine, taught in zip(answers, (truth, pseudo), strict=True):
                loss(detector, mine.stages, assign(detector, mine.stages, taught), taught)

        step()  # lays out the anchors
        with host_questions() as asked:
            step()
        return asked

    return count
