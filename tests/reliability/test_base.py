import math
from dataclasses import replace

import torch

from ssodkit.assigners.selectors.base import SetRule
from ssodkit.assigners.selectors.target_sets import is_ignored, passes
from ssodkit.reliability.base import Asks, answer
from ssodkit.structures.predictions import Detections


def detections(confidence):
    count = len(confidence)
    return Detections(
        boxes=torch.arange(4.0 * count).reshape(1, count, 4),
        labels=torch.arange(count)[None],
        valid=torch.ones(1, count, dtype=torch.bool),
        scores={"confidence": torch.tensor([confidence])},
    )


def test_asks__chooses_the_best_above_its_threshold():
    asked, rows = Asks(above=0.5, at_most=2).choose(detections([0.6, 0.9, 0.5, 0.8]))
    assert rows.tolist() == [[1, 3]]
    assert asked.labels.tolist() == [[1, 3]]
    assert asked.boxes[0, :, 0].tolist() == [4.0, 12.0]
    assert asked.valid.tolist() == [[True, True]]


def test_asks__a_score_at_the_threshold_is_not_asked():
    asked, _ = Asks(above=0.5, at_most=2).choose(detections([0.5, 0.6]))
    assert asked.labels[asked.valid].tolist() == [1]


def test_asks__padding_is_not_asked():
    found = replace(detections([0.9, 0.8]), valid=torch.tensor([[False, True]]))
    asked, _ = Asks(at_most=2).choose(found)
    assert asked.labels[asked.valid].tolist() == [1]


def test_asks__nothing_found_asks_nothing():
    asked, rows = Asks().choose(Detections.empty(3))
    assert asked.boxes.shape == (3, 0, 4)
    assert rows.shape == (3, 0)


def test_answer__what_was_not_asked_passes_no_rule():
    found = detections([0.6, 0.9, 0.4])
    asked, rows = Asks(above=0.5, at_most=3).choose(found)
    answered = answer(found, "jitter", torch.tensor([[0.1, 0.2, 0.3]]), asked, rows)
    jitter = answered.scores["jitter"]
    torch.testing.assert_close(jitter, torch.tensor([[0.2, 0.1, torch.nan]]), equal_nan=True)
    for rule in (SetRule(score="jitter", above=0.0), SetRule(score="jitter", below=math.inf)):
        assert passes(jitter, rule).tolist() == [[True, True, False]]
    ignores = SetRule(score="jitter", below=0.05, ignore_from=math.inf)
    ignored = is_ignored(jitter, ignores, found.valid)
    assert ignored is not None
    assert ignored.tolist() == [[True, True, False]]
    assert answered.scores["confidence"] is found.scores["confidence"]
