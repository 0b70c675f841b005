"""One-to-many matching first, one-to-one from a step of the run on: on all stages that answer before matching."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY_DETECTORS

from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Supervision

BOXES = [[(4, 4, 28, 40, 0), (30, 20, 56, 50, 2)], []]
MANY = {"type": "one_to_many", "candidates_per_target": 4}
SOFT = {
    "class": {"criterion": {"type": "focal", "balance": None}, "quality": "target", "normalizer": "quality"},
    "box": {"quality": "weight", "normalizer": "quality"},
}
BEFORE, AFTER = Progress(4, 10), Progress(5, 10)


def stage_wise(type: str, stage: str) -> dict:
    """The stages of a tiny detector, of which one is matched one to many in the first half of a run."""
    stages = TINY_DETECTORS[type]["stages"]
    rule = stages[stage]
    many, one = {}, {}
    for name, term in rule["terms"].items():
        soft = SOFT["class" if name == "class" else "box"] if name in ("class", "box", "l1", "giou") else {}
        many[name] = {**term, **soft}
        one[name] = {key: term.get(key, "unused") for key in soft}
    phase = {"at": "50 %", "matcher": rule["matcher"], "terms": one}
    return {**stages, stage: {**rule, "matcher": MANY, "terms": many, "phases": [phase]}}


@pytest.mark.parametrize(
    ("type", "stage"),
    [("retinanet", "dense"), ("fcos", "dense"), ("faster_rcnn", "rpn"), ("dino", "encoder"), ("dino", "decoder")],
)
def test_phases__one_to_many_becomes_the_detectors_own_matching(tiny_context, make_view, make_targets, type, stage):
    def learn(stages: dict, progress: Progress):
        context = tiny_context(type=type, stages=stages)
        detector = context.detector.build(context)
        truth = Supervision.uniform(make_targets(BOXES), progress)
        (answered,) = predict_together(detector, [make_view("a", [1, 2])], [truth])
        answers = answered.stages
        plan = assign(detector, answers, truth)
        losses = loss(detector, answers, plan, truth)
        name = next(name for name in reversed(answers.by_name) if name.partition(".")[0] == stage)
        return plan[name]["class"], losses.values(losses.denominators())

    changing, plain = stage_wise(type, stage), TINY_DETECTORS[type]["stages"]
    only_many = {**changing, stage: {key: part for key, part in changing[stage].items() if key != "phases"}}
    for stages, progress in ((only_many, BEFORE), (plain, AFTER)):
        matched, values = learn(changing, progress)
        expected, same = learn(stages, progress)
        assert torch.equal(matched.index, expected.index)
        assert values.keys() == same.keys()
        for name, value in values.items():
            torch.testing.assert_close(value, same[name], msg=name)
            assert value.isfinite()
    many, one = (learn(changing, replace(BEFORE, step=step))[0] for step in (4, 5))
    assert 0 < many.positive[0].sum() <= 8
    assert not torch.equal(many.index, one.index)
    assert (many.quality[many.positive] < 1.0).all()
