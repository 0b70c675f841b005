import pytest
import torch
from pydantic import ValidationError

from ssodkit.assigners.selectors.base import SelectionContext
from ssodkit.assigners.selectors.fixed import FixedSelectorConfig
from ssodkit.plugins import BuildContext
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.predictions import Detections
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

UNUSED_DETECTOR = ConstantConfig(value=0.0)


def select(scores, name="confidence", **rule):
    count = len(scores)
    left = torch.arange(count) * 20.0
    found = Detections(
        boxes=torch.stack([left, torch.zeros(count), left + 10.0, torch.full((count,), 10.0)], dim=-1)[None],
        labels=torch.zeros(1, count, dtype=torch.int64),
        valid=torch.ones(1, count, dtype=torch.bool),
        scores={"confidence": torch.full((1, count), 0.5)} | {name: torch.tensor([scores])},
    )
    config = FixedSelectorConfig.model_validate({"type": "fixed", **rule})
    selector = config.build(BuildContext(num_classes=3, detector=UNUSED_DETECTOR))
    return selector(found, SelectionContext(Progress(0, 10), Targets.empty(1)))


@pytest.mark.parametrize(
    ("above", "scores", "kept"),
    [
        (0.5, [0.95, 0.51, 0.50, 0.49], [True, True, False, False]),  # Mean Teacher
        (0.7, [0.71, 0.70, 0.95], [True, False, True]),  # Unbiased Teacher
    ],
)
def test_fixed__the_threshold_is_strict(above, scores, kept):
    selection = select(scores, above=above)
    assert selection.supervision.classes.valid.tolist() == [kept]
    assert selection.passed["threshold"].tolist() == [kept]


def test_fixed__one_set_teaches_everything():
    supervision = select([0.9], above=0.5).supervision
    assert supervision.objectness is supervision.classes is supervision.boxes
    assert supervision.classes.all_teach


def test_fixed__what_reaches_ignore_from_stays_with_weight_0():
    selection = select([0.9, 0.6, 0.3], above=0.7, ignore_from=0.5)
    classes = selection.supervision.classes
    assert classes.valid.tolist() == [[True, True, False]]
    assert classes.weight.tolist() == [[1.0, 0.0, 0.0]]
    assert selection.passed["threshold"].tolist() == [[True, False, False]]


def test_fixed__may_read_another_score_of_which_less_is_better():
    selection = select([0.01, 0.03], name="box_jitter", score="box_jitter", below=0.02)
    assert selection.supervision.boxes.valid.tolist() == [[True, False]]


def test_fixed__reads_its_score():
    assert FixedSelectorConfig(above=0.7).reads == {"confidence"}
    assert FixedSelectorConfig(score="box_jitter", below=0.02).reads == {"box_jitter"}


@pytest.mark.parametrize("rule", [{}, {"above": 0.7, "below": 0.9}, {"above": 0.7, "ignore_from": 0.8}])
def test_fixed__needs_one_threshold(rule):
    with pytest.raises(ValidationError):
        FixedSelectorConfig.model_validate({"type": "fixed", **rule})
