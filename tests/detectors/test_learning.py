from dataclasses import replace

import pytest
import torch

from ssodkit.detectors.learning import assign, loss, predict_together
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Supervision, Targets

PROGRESS = Progress(0, 10)


@pytest.fixture
def detector(tiny_context):
    context = tiny_context()
    return context.detector.build(context)


@pytest.fixture
def taught(make_view, make_targets):
    """A labeled view and an unlabeled one, the latter with other boxes for the box term."""
    truth = make_targets([[(4, 4, 28, 40, 0), (30, 20, 56, 50, 2)], [(10, 8, 34, 44, 1)]])
    classes = make_targets([[(6, 6, 30, 42, 1)], [], [(20, 10, 50, 50, 0)]])
    boxes = make_targets([[(6, 6, 30, 42, 1), (32, 22, 60, 60, 2)], [(5, 5, 30, 40, 0)], []])
    views = [make_view("labeled", [1, 2]), make_view("strong", [3, 4, 5])]
    return views, [Supervision.uniform(truth, PROGRESS), Supervision(classes, classes, boxes, PROGRESS)]


def values(losses: Losses) -> dict[str, torch.Tensor]:
    return losses.values(losses.denominators())


def learn(detector, view, supervision) -> Losses:
    stages = predict_together(detector, [view], [supervision])[0].stages
    return loss(detector, stages, assign(detector, stages, supervision), supervision)


def test_predict_together__joined_views_teach_as_separate_ones_do(detector, taught):
    views, supervisions = taught
    totals = {}
    for joined in ("always", "never"):
        together = predict_together(detector, views, supervisions, joined=joined)
        totals[joined] = [
            values(loss(detector, mine.stages, assign(detector, mine.stages, supervision), supervision))
            for mine, supervision in zip(together, supervisions, strict=True)
        ]
    for always, never in zip(totals["always"], totals["never"], strict=True):
        for name in never:
            torch.testing.assert_close(always[name], never[name], rtol=1e-5, atol=1e-6)
            assert never[name] > 0.0, name


@pytest.mark.parametrize(
    ("side", "joined", "forwards"),
    [(64, "auto", 1), (60, "auto", 1), (48, "auto", 2), (48, "always", 1), (64, "never", 2)],
)
def test_predict_together__joins_where_that_adds_few_pixels(detector, make_view, side, joined, forwards):
    calls = []
    detector.backbone.register_forward_hook(lambda *_: calls.append(1))
    views = [make_view("a", [1, 2]), make_view("b", [3, 4], side=side)]
    nothing = Supervision.uniform(Targets.empty(2), PROGRESS)
    predict_together(detector, views, [nothing, nothing], joined=joined)
    assert len(calls) == forwards


def test_predict_together__uses_the_training_proposals(detector, taught):
    views, _ = taught
    with torch.no_grad():
        features = detector.extract(views[0])
        training = detector.predict(features, proposals="training").last.candidates
        test = detector.predict(features, proposals="test").last.candidates
    counts = detector.config.proposals
    assert training.boxes.shape[1] == counts.training.keep
    assert test.boxes.shape[1] == counts.test.keep


def test_assign__matches_once_per_set_of_targets(detector, taught):
    views, supervisions = taught
    calls = []
    detector.matchers["rpn"].register_forward_hook(lambda *_: calls.append(1))
    stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
    plan = assign(detector, stages, supervisions[0])
    assert len(calls) == 1
    assert plan["rpn"]["class"] is plan["rpn"]["box"]
    doubtful = replace(supervisions[0].classes, all_teach=False)
    assign(detector, stages, Supervision.uniform(doubtful, PROGRESS))
    assert len(calls) == 3  # targets that teach, then targets that are ignored


def test_assign__takes_over_the_plan_of_a_stage_that_has_one(detector, taught):
    views, supervisions = taught
    stages = predict_together(detector, views[1:], supervisions[1:])[0].stages
    plan = assign(detector, stages, supervisions[1])
    assert plan["roi"]["class"] is stages.last.plan["class"]
    assert plan["roi"]["box"] is stages.last.plan["box"]


def test_assign__samples_as_many_as_the_rule_says(detector, taught):
    views, supervisions = taught
    stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
    rpn = assign(detector, stages, supervisions[0])["rpn"]["class"]
    assert rpn.sampled.tolist() == [32.0, 32.0]
    assert ((rpn.weight > 0.0).sum(dim=1) == 32).all()
    assert ((rpn.weight > 0.0) & rpn.positive).sum(dim=1).max() <= 16


def test_assign__candidates_that_reach_beyond_their_image_learn_nothing_where_the_rule_says_so(tiny_context, taught):
    """Also where one of them is the best that a target has: the best of the others learns from it."""
    views, supervisions = taught
    indices = {}
    for crossing in ("learn", "ignore"):
        context = tiny_context()
        rule = context.detector.stages["rpn"].model_copy(update={"crossing": crossing})
        config = context.detector.model_copy(update={"stages": {**context.detector.stages, "rpn": rule}})
        detector = config.build(replace(context, detector=config))
        stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
        indices[crossing] = assign(detector, stages, supervisions[0])["rpn"]["class"].index
    boxes = stages.by_name["rpn"].candidates.boxes
    crosses = (boxes[..., :2] < 0.0).any(dim=-1) | (boxes[..., 2:] > 64.0).any(dim=-1)
    assert (indices["learn"][crosses] >= 0).any()
    assert (indices["ignore"][crosses] == IGNORE).all()
    for image, target in ((0, 0), (0, 1), (1, 0)):
        assert (indices["ignore"][image] == target).any()


def test_loss__has_the_four_terms(detector, taught):
    views, supervisions = taught
    assert list(learn(detector, views[0], supervisions[0])) == ["rpn/class", "rpn/box", "roi/class", "roi/box"]


@pytest.mark.parametrize("length", [0, 2])
def test_loss__without_targets_every_term_has_a_gradient(detector, make_view, length):
    nothing = Supervision.uniform(Targets.empty(2, length=length), PROGRESS)
    losses = learn(detector, make_view("a", [1, 2]), nothing)
    sum(values(losses).values()).backward()
    assert losses.terms["roi/box"].sum.item() == losses.terms["rpn/box"].sum.item() == 0.0
    assert losses.terms["roi/class"].sum.item() > 0.0
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_loss__without_candidates_is_zero_with_a_gradient(detector, make_view):
    view = make_view("a", [1, 2])
    view = replace(view, sizes=torch.zeros_like(view.sizes))  # no anchor begins inside an image of no size
    losses = learn(detector, view, Supervision.uniform(Targets.empty(2), PROGRESS))
    sum(values(losses).values()).backward()
    assert all(term.sum.item() == 0.0 for term in losses.terms.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad == 0.0).all(), name


@pytest.mark.parametrize("quality", ["unused", "target", "weight"])
@pytest.mark.parametrize("matcher", ["adaptive", "one_to_many"])
def test_loss__of_a_matcher_that_reads_answers(tiny_context, taught, matcher: str, quality: str):
    term = {"taught_by": "objectness", "normalizer": "quality"}
    box_quality = "unused" if quality == "target" else quality  # a box is no soft target
    rpn = {
        "matcher": {"type": matcher},
        "one_class": True,
        "terms": {
            "class": {**term, "criterion": {"type": "binary"}, "quality": quality},
            "box": {**term, "criterion": {"type": "l1"}, "quality": box_quality},
        },
    }
    context = tiny_context()
    stages = {**context.detector.model_dump()["stages"], "rpn": rpn}
    context = tiny_context(stages=stages)
    detector = context.detector.build(context)
    views, supervisions = taught
    answered = predict_together(detector, views[:1], supervisions[:1])[0].stages
    plan = assign(detector, answered, supervisions[0])
    positive = plan["rpn"]["class"].positive
    assert positive.any(dim=1).all()
    losses = loss(detector, answered, plan, supervisions[0])
    for name in ("rpn/class", "rpn/box"):
        expected = (plan["rpn"]["class"].quality * positive).sum()
        assert losses.terms[name].denominator.item() == pytest.approx(expected.item())
    total = losses.terms["rpn/class"].sum + losses.terms["rpn/box"].sum
    total.backward()
    for name, parameter in detector.rpn.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_loss__padded_targets_change_nothing(detector, taught):
    views, supervisions = taught
    targets = supervisions[0].classes
    wide = Targets(
        boxes=torch.cat([targets.boxes, torch.full((2, 3, 4), torch.nan)], dim=1),
        **{
            name: torch.nn.functional.pad(getattr(targets, name), (0, 3))
            for name in ("labels", "valid", "weight", "crowd")
        },
    )
    expected = values(learn(detector, views[0], supervisions[0]))
    for name, value in values(learn(detector, views[0], Supervision.uniform(wide, PROGRESS))).items():
        torch.testing.assert_close(value, expected[name])


def test_loss__what_is_ignored_counts_nowhere(detector, taught):
    views, supervisions = taught
    stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
    plan = assign(detector, stages, supervisions[0])
    assignment = plan["rpn"]["class"]
    drawn = assignment.background & (assignment.weight > 0.0)
    ignored = replace(assignment, index=assignment.index.masked_fill(drawn, IGNORE))
    losses = loss(detector, stages, {**plan, "rpn": {"class": ignored, "box": ignored}}, supervisions[0])
    positives = assignment.positive & (assignment.weight > 0.0)
    logits = stages.by_name["rpn"].class_logits[..., 0]
    torch.testing.assert_close(losses.terms["rpn/class"].sum, torch.nn.functional.softplus(-logits)[positives].sum())


def test_loss__background_is_the_last_column(detector, taught):
    views, supervisions = taught
    stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
    plan = assign(detector, stages, supervisions[0])
    roi = plan["roi"]["class"]
    labels = supervisions[0].classes.labels.gather(1, roi.index.clamp(min=0))
    columns = torch.where(roi.index == BACKGROUND, detector.num_classes, labels)
    drawn = roi.weight > 0.0
    expected = torch.nn.functional.cross_entropy(stages.last.class_logits[drawn], columns[drawn], reduction="sum")
    losses = loss(detector, stages, plan, supervisions[0])
    torch.testing.assert_close(losses.terms["roi/class"].sum, expected)
    assert losses.terms["roi/class"].denominator == drawn.sum()


def test_loss__a_weight_travels_with_its_target(detector, taught):
    views, supervisions = taught
    half = replace(supervisions[0].classes, weight=supervisions[0].classes.weight * 0.5)
    whole = learn(detector, views[0], supervisions[0]).terms["roi/box"]
    weighed = learn(detector, views[0], Supervision.uniform(half, PROGRESS)).terms["roi/box"]
    torch.testing.assert_close(weighed.sum, whole.sum * 0.5)
    torch.testing.assert_close(weighed.denominator, whole.denominator)


@pytest.mark.parametrize("use", ["unused", "target", "weight"])
def test_loss__quality_can_be_the_target_or_a_weight(detector, taught, use):
    views, supervisions = taught
    rule = detector.stage_rules["rpn"]
    term = rule.terms["class"].model_copy(update={"quality": use, "weight": 3.0, "floor": 7.0})
    detector.stage_rules = {**detector.stage_rules, "rpn": rule.model_copy(update={"terms": {"class": term}})}
    stages = predict_together(detector, views[:1], supervisions[:1])[0].stages
    plan = assign(detector, stages, supervisions[0])
    assignment, logits = plan["rpn"]["class"], stages.by_name["rpn"].class_logits[..., 0]
    target = torch.where(assignment.positive, assignment.quality if use == "target" else 1.0, 0.0)
    weight = assignment.weight * torch.where(assignment.positive & (use == "weight"), assignment.quality, 1.0)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    answer = loss(detector, stages, plan, supervisions[0]).terms["rpn/class"]
    torch.testing.assert_close(answer.sum, (losses * weight).sum())
    assert (answer.factor, answer.floor) == (3.0, 7.0)
