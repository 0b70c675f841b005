import pytest
from pydantic import ValidationError

from ssodkit.detectors.rules import DenseDetectionRule, StageRule, TermChange, changes_of
from ssodkit.plugins import load_plugins
from ssodkit.structures.progress import Progress

RULE = {
    "matcher": {"type": "max_iou"},
    "terms": {
        "class": {"taught_by": "classes", "criterion": {"type": "focal"}, "normalizer": "positives", "weight": 2.0},
        "box": {"taught_by": "boxes", "criterion": {"type": "giou"}, "normalizer": "positives"},
    },
}
LATER = {
    "at": "50 %",
    "matcher": {"type": "one_to_many"},
    "terms": {"class": {"criterion": {"type": "binary"}, "quality": "target", "weight": 3.0}, "box": 0.5},
}


def rule(*phases) -> StageRule:
    load_plugins()
    return StageRule.model_validate({**RULE, "phases": list(phases)})


def test_changes_of__come_from_the_stage_to_the_single_term():
    changes = {"roi/box": TermChange(), "box": TermChange(), "roi": TermChange(), "rpn": TermChange()}
    assert [id(change) for change in changes_of(changes, "roi", "box", "box")] == [
        id(changes[key]) for key in ("roi", "box", "roi/box")
    ]
    assert changes_of(changes, "roi", "class", "class") == [changes["roi"]]
    assert changes_of({"box": TermChange()}, "roi", "roibox", "quality") == []


def test_changes_of__name_a_term_or_what_it_teaches():
    changes = {name: TermChange(weight=weight) for weight, name in enumerate(("box", "l1", "roi/box", "roi/l1"))}
    assert changes_of(changes, "roi", "l1", "box") == [changes[name] for name in ("box", "l1", "roi/box", "roi/l1")]
    assert changes_of(changes, "rpn", "giou", "box") == [changes["box"]]


def test_term_change__a_number_is_a_weight_and_is_written_as_one():
    change = TermChange.model_validate(0.25)
    assert change.weight.at(Progress(3, 10)) == 0.25
    assert change.model_dump(mode="json") == 0.25
    whole = TermChange.model_validate({"normalizer": "weights"}).model_dump(mode="json")
    assert whole["normalizer"] == "weights"


def test_stage_rule__a_phase_is_laid_on_it_from_its_step_on():
    changing = rule(LATER)
    before, after = Progress(4, 10), Progress(5, 10)
    assert changing.at(before) == changing
    assert changing.at(after).matcher.type == "one_to_many"
    learned = changing.at(after).terms["class"]
    assert (learned.criterion.type, learned.quality, learned.normalizer.type) == ("binary", "target", "positives")
    assert changing.at(after).terms["box"] == changing.terms["box"]
    assert [changing.weight(term, before) for term in ("class", "box")] == [2.0, 1.0]
    assert [changing.weight(term, after) for term in ("class", "box")] == [6.0, 0.5]


def test_stage_rule__later_phases_are_laid_on_earlier_ones():
    last = {"at": 8, "terms": {"class": {"quality": "unused", "weight": 0.5}}}
    changing = rule(LATER, last)
    learned = changing.at(Progress(8, 10)).terms["class"]
    assert (learned.criterion.type, learned.quality) == ("binary", "unused")
    assert changing.at(Progress(8, 10)).matcher.type == "one_to_many"
    assert changing.weight("class", Progress(8, 10)) == 3.0


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"klass": 0.5}, "a phase changes the term 'klass', and there is none; did you mean 'class'?"),
        ({"box": {"quality": "target"}}, "a phase cannot change the term 'box' so: `quality: target` has no effect on"),
        ({"box": {"criterion": {"type": "focal"}}}, "'focal' teaches the answer 'class', but this term 'box'"),
    ],
)
def test_stage_rule__a_phase_that_does_not_fit_is_refused(terms, said: str):
    with pytest.raises(ValidationError) as refusal:
        rule({"at": 1, "terms": terms})
    assert said in str(refusal.value)


def test_detection_rule__suppresses_until_its_step():
    rule = DenseDetectionRule(nms=0.6, nms_until="50 %")
    assert [rule.at(Progress(step, 120_000)).nms for step in (0, 59_999, 60_000)] == [0.6, 0.6, None]
    assert rule.at(Progress(0, 10)) == DenseDetectionRule(nms=0.6)  # it changes no more
    assert rule.at(None) is rule
    assert rule.at(Progress(9, 10), nms=0.4) == rule.at(None, nms=0.4) == DenseDetectionRule(nms=0.4)
    assert DenseDetectionRule(nms=None).at(Progress(0, 10)).nms is None


def test_detection_rule__what_never_began_cannot_end():
    with pytest.raises(ValidationError, match="`nms_until` has no effect without `nms`"):
        DenseDetectionRule(nms=None, nms_until=3)
