from dataclasses import replace

import pytest
import torch
from torchvision.ops import box_iou

from ssodkit.assigners.matchers.base import Question
from ssodkit.assigners.matchers.max_iou import MaxIou, MaxIouConfig
from ssodkit.detectors.criteria.l1 import L1Config
from ssodkit.detectors.criteria.softmax import SoftmaxConfig
from ssodkit.detectors.rules import Sampler, StageRule
from ssodkit.detectors.sampling import match, sample, sample_regions, taught_sets
from ssodkit.ops.coding import BoxCoder, EdgeCoder
from ssodkit.plugins import load_plugins
from ssodkit.structures.predictions import Candidates, Predictions
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import BACKGROUND, IGNORE, Assignment, Supervision, Targets

PROGRESS = Progress(0, 1)
MATCHER = MaxIou(MaxIouConfig(positive=0.5, negative=0.5, best_from=None))
KEYS = torch.tensor([101, 202])
LEFT, RIGHT = (0.0, 0.0, 10.0, 10.0), (50.0, 0.0, 60.0, 10.0)


def rule(per_image: int = 8, share: float = 0.5, boxes_by: str = "boxes") -> StageRule:
    load_plugins()
    return StageRule.model_validate(
        {
            "matcher": MaxIouConfig(positive=0.5, negative=0.5, best_from=None),
            "sampler": {"per_image": per_image, "positive_share": share},
            "terms": {
                "class": {"taught_by": "classes", "criterion": SoftmaxConfig(), "normalizer": "weights"},
                "box": {"taught_by": boxes_by, "criterion": L1Config(), "normalizer": "sampled"},
            },
        }
    )


def candidates(boxes: torch.Tensor) -> Candidates:
    return Candidates(boxes, torch.ones(boxes.shape[:2], dtype=torch.bool))


def predictions(boxes: torch.Tensor) -> Predictions:
    shape = boxes.shape[:2]
    return Predictions(candidates(boxes), torch.zeros(*shape, 0), "softmax", torch.zeros(*shape, 0, 4), BoxCoder())


def targets(
    boxes: list[tuple[float, ...]], weight: list[float] | None = None, crowd: list[bool] | None = None
) -> Targets:
    """The same targets for one image."""
    count = len(boxes)
    return Targets(
        boxes=torch.tensor(boxes).view(1, count, 4),
        labels=torch.arange(count)[None],
        valid=torch.ones(1, count, dtype=torch.bool),
        weight=torch.tensor([weight or [1.0] * count]),
        crowd=torch.tensor([crowd or [False] * count]),
    )


def assignment(kinds: str) -> Assignment:
    """One image; p is positive, b background, i ignored."""
    index = torch.tensor([[{"p": 0, "b": BACKGROUND, "i": IGNORE}[kind] for kind in kinds]], dtype=torch.int64)
    ones = torch.ones(index.shape)
    return Assignment(index, ones, ones, torch.zeros(1))


def matched(answers: Predictions, taught: Targets) -> Assignment:
    (found,) = match([Question(MATCHER, answers, taught)], PROGRESS)
    return found


def test_match__a_positive_weighs_what_its_target_weighs():
    found = matched(predictions(torch.tensor([[LEFT, RIGHT]])), targets([LEFT, RIGHT], [0.25, 1.0]))
    assert found.index.tolist() == [[0, 1]]
    assert found.weight.tolist() == [[0.25, 1.0]]


def test_match__candidates_of_a_target_of_weight_zero_are_ignored():
    found = matched(predictions(torch.tensor([[LEFT, RIGHT]])), targets([LEFT], [0.0]))
    assert found.index.tolist() == [[IGNORE, BACKGROUND]]


def test_match__targets_that_teach_come_first():
    nearer = (0.0, 0.0, 10.0, 9.0)
    found = matched(predictions(torch.tensor([[nearer]])), targets([LEFT, nearer], [1.0, 0.0]))
    assert found.index.tolist() == [[0]]


@pytest.mark.parametrize(("top", "index"), [(5.0, IGNORE), (5.1, BACKGROUND)])
def test_match__what_lies_half_in_a_crowd_is_ignored(top: float, index: int):
    crowd = targets([(0.0, top, 1000.0, 1000.0)], crowd=[True])
    assert matched(predictions(torch.tensor([[LEFT]])), crowd).index.tolist() == [[index]]


def test_match__a_crowd_takes_no_positive_and_teaches_nothing():
    found = matched(predictions(torch.tensor([[LEFT, RIGHT]])), targets([LEFT, LEFT], crowd=[False, True]))
    assert found.index.tolist() == [[0, BACKGROUND]]
    found = matched(predictions(torch.tensor([[LEFT]])), targets([LEFT], crowd=[True]))
    assert found.index.tolist() == [[IGNORE]]


def test_match__queries_lie_in_a_crowd_where_their_answers_do():
    crowd = targets([(20.0, 0.0, 1000.0, 1000.0)], crowd=[True])
    asked = predictions(torch.tensor([[LEFT, LEFT]]))
    codes = EdgeCoder().encode(asked.candidates.boxes, torch.tensor([[LEFT, RIGHT]]))[:, :, None]
    asked = replace(asked, box_codes=codes, coder=EdgeCoder())
    queries = replace(asked, candidates=replace(asked.candidates, lie=False))
    assert matched(asked, crowd).index.tolist() == [[BACKGROUND, BACKGROUND]]
    assert matched(queries, crowd).index.tolist() == [[BACKGROUND, IGNORE]]


def test_match__matchers_of_one_class_are_asked_together_and_answers_keep_their_order():
    class Joint(MaxIou):
        calls = 0

        @staticmethod
        def answer(questions, progress):
            Joint.calls += 1
            return MaxIou.answer(questions, progress)

    joint, other = Joint(MATCHER.config), MATCHER
    boxes, taught = [torch.tensor([[LEFT, RIGHT]]), torch.tensor([[RIGHT, LEFT]])], targets([LEFT], [1.0])
    kinds = zip((joint, other, joint), (boxes[0], boxes[1], boxes[0]), strict=True)
    questions = [Question(kind, predictions(row), taught) for kind, row in kinds]
    found = match([*questions, replace(questions[0], targets=Targets.empty(1))], PROGRESS)
    assert [one.index.tolist() for one in found] == [[[0, -1]], [[-1, 0]], [[0, -1]], [[-1, -1]]]
    assert Joint.calls == 1


def test_match__where_all_targets_teach_the_matcher_is_asked_once_and_answers_the_same():
    class Counting(MaxIou):
        calls = 0

        def forward(self, predictions, targets, progress):
            Counting.calls += 1
            return super().forward(predictions, targets, progress)

    nearer = (0.0, 0.0, 10.0, 9.0)
    doubtful = targets([LEFT, RIGHT], [0.25, 1.0])
    questions = [
        Question(Counting(MATCHER.config), predictions(torch.tensor([[nearer, RIGHT, (80.0, 0.0, 90.0, 9.0)]])), taught)
        for taught in (doubtful, replace(doubtful, all_teach=True))
    ]
    (asked_twice,) = match(questions[:1], PROGRESS)
    assert Counting.calls == 2
    (asked_once,) = match(questions[1:], PROGRESS)
    assert Counting.calls == 3
    for field in ("index", "weight", "quality", "sampled"):
        assert torch.equal(getattr(asked_once, field), getattr(asked_twice, field))


def test_match__without_targets_all_is_background():
    found = matched(predictions(torch.tensor([[LEFT, RIGHT]])), Targets.empty(1))
    assert found.index.tolist() == [[BACKGROUND, BACKGROUND]]


@pytest.mark.parametrize(
    ("kinds", "positives", "background"),
    [
        ("pppppbbbbb", 2, 4),
        ("pbbbbbbbbb", 1, 5),
        ("pppp", 2, 0),
        ("bb", 0, 2),
        ("iiii", 0, 0),
        ("ppiiib", 2, 1),
        ("", 0, 0),
    ],
)
def test_sample__background_fills_what_positives_leave(kinds: str, positives: int, background: int):
    found = sample(assignment(kinds), Sampler(per_image=6, positive_share=0.4), KEYS[:1], "test")
    drawn = found.weight > 0.0
    assert int((found.positive & drawn).sum()) == positives
    assert int((found.background & drawn).sum()) == background
    assert found.sampled.tolist() == [positives + background]


def test_sample__all_are_alike_and_draws_differ_by_key_and_purpose():
    chosen, sampler = torch.zeros(20), Sampler(per_image=5, positive_share=0.0)
    for key in range(400):
        chosen += (sample(assignment("b" * 20), sampler, torch.tensor([key]), "test").weight > 0.0)[0]
    assert chosen.min() > 60  # 100 expected, standard deviation 9
    assert chosen.max() < 140
    here, there = (sample(assignment("b" * 20), sampler, KEYS[:1], purpose).weight for purpose in ("here", "there"))
    assert not torch.equal(here, there)


def test_sample__without_a_sampler_takes_all():
    found = sample(assignment("ppbi"), None, KEYS[:1], "test")
    assert found.weight.tolist() == [[1.0, 1.0, 1.0, 0.0]]
    assert found.sampled.tolist() == [3.0]


def test_taught_sets__of_one_class_are_shared_as_the_sets_are():
    classes, boxes = targets([LEFT, RIGHT]), targets([RIGHT, LEFT])
    supervision = Supervision(classes, classes, boxes, PROGRESS)
    one = taught_sets(rule().model_copy(update={"one_class": True}), supervision)
    assert one["class"].labels.tolist() == [[0, 0]]
    assert one["class"] is not one["box"]
    assert taught_sets(rule(), supervision)["box"] is boxes
    shared = taught_sets(rule().model_copy(update={"one_class": True}), Supervision.uniform(classes, PROGRESS))
    assert shared["class"] is shared["box"]


def proposals(batch: int = 2, count: int = 40) -> Candidates:
    generator = torch.Generator().manual_seed(0)
    low = 50.0 * torch.rand(batch, count, 2, generator=generator)
    return candidates(torch.cat([low, low + 5.0 + 30.0 * torch.rand(batch, count, 2, generator=generator)], dim=-1))


def near(seen: Candidates, places: list[int]) -> Targets:
    """Targets 0, 1, .. that are some of the proposals, a little larger."""
    boxes = seen.boxes[:, places] + torch.tensor([-1.0, -1.0, 1.0, 1.0])
    full = torch.ones(boxes.shape[:2])
    return Targets(boxes, torch.arange(len(places)).expand(len(boxes), -1), full.bool(), full, ~full.bool())


def test_sample_regions__equal_sets_are_sampled_once():
    supervision = Supervision.uniform(near(proposals(), [3, 8]), PROGRESS)
    regions, plan = sample_regions(proposals(), rule(), MATCHER, supervision, KEYS)
    assert plan["class"] is plan["box"]
    assert regions.boxes.shape == (2, 8, 4)
    assert regions.valid.all()
    assert plan["class"].sampled.tolist() == [8.0, 8.0]
    assert (plan["class"].positive.sum(dim=1) <= 4).all()
    assert (plan["class"].positive.sum(dim=1) >= 2).all()


def test_sample_regions__targets_join_the_proposals():
    far = targets([(900.0, 900.0, 950.0, 950.0)])
    supervision = Supervision.uniform(far, PROGRESS)
    seen = proposals(batch=1)
    regions, plan = sample_regions(seen, rule(), MATCHER, supervision, KEYS[:1])
    taught = plan["class"].positive
    assert regions.boxes[taught].tolist() == [[900.0, 900.0, 950.0, 950.0]]
    _, plan = sample_regions(seen, rule(), MATCHER, supervision, KEYS[:1], append_targets=False)
    assert not plan["class"].positive.any()


def test_sample_regions__targets_that_do_not_teach_do_not_join():
    for weight, crowd in ((0.0, False), (1.0, True)):
        far = targets([(900.0, 900.0, 950.0, 950.0)], [weight], [crowd])
        regions, _ = sample_regions(proposals(1), rule(), MATCHER, Supervision.uniform(far, PROGRESS), KEYS[:1])
        assert regions.boxes[regions.valid].max() < 900.0


def drawn(regions: Candidates, plan: Assignment, box: tuple[float, ...]) -> list[tuple[int, float, float]]:
    """Of the regions of the first image that are this box: target, weight and quality."""
    here = (regions.boxes[0] == torch.tensor(box)).all(dim=1) & regions.valid[0]
    columns = (column[0][here].tolist() for column in (plan.index, plan.weight, plan.quality))
    return sorted(zip(*columns, strict=True))


def test_sample_regions__equal_boxes_of_two_classes_teach_a_region_each():
    """As in mmdetection, which adds the boxes to what it matched, each with its own; torchvision matches them, too."""
    same = (900.0, 900.0, 950.0, 950.0)
    taught = targets([same, LEFT, same], [0.25, 1.0, 0.5])
    seen = proposals(batch=1)
    regions, plan = sample_regions(seen, rule(), MATCHER, Supervision.uniform(taught, PROGRESS), KEYS[:1])
    assert drawn(regions, plan["class"], same) == [(0, 0.25, 1.0), (2, 0.5, 1.0)]


def test_sample_regions__equal_boxes_teach_a_region_each_in_the_set_of_the_boxes_too():
    same = (900.0, 900.0, 950.0, 950.0)
    classes, boxes = targets([same, same]), targets([LEFT, same, same])
    supervision = Supervision(classes, classes, boxes, PROGRESS)
    regions, plan = sample_regions(proposals(batch=1), rule(share=0.75), MATCHER, supervision, KEYS[:1])
    of_classes, of_boxes = (drawn(regions, plan[term], same) for term in ("class", "box"))
    assert [index for index, weight, _ in of_classes if weight > 0.0] == [0, 1]
    assert [index for index, weight, _ in of_boxes if weight > 0.0] == [1, 2]


def test_sample_regions__a_proposal_on_equal_boxes_learns_from_the_first():
    supervision = Supervision.uniform(targets([LEFT, LEFT]), PROGRESS)
    seen = candidates(torch.tensor([[LEFT]]))
    regions, plan = sample_regions(seen, rule(), MATCHER, supervision, KEYS[:1])
    assert [index for index, _, _ in drawn(regions, plan["class"], LEFT)] == [0, 0, 1]


def test_sample_regions__targets_without_area_do_not_join():
    line = targets([(900.0, 900.0, 950.0, 900.0), LEFT])
    regions, plan = sample_regions(proposals(1), rule(), MATCHER, Supervision.uniform(line, PROGRESS), KEYS[:1])
    assert regions.boxes[regions.valid].max() < 900.0
    assert drawn(regions, plan["class"], LEFT) == [(1, 1.0, 1.0)]


def test_sample_regions__another_set_for_the_boxes_adds_its_positives():
    seen = proposals()
    classes, boxes = near(seen, [3]), near(seen, [8, 20])
    supervision = Supervision(classes, classes, boxes, PROGRESS)
    regions, plan = sample_regions(seen, rule(), MATCHER, supervision, KEYS)
    for_class, for_box = plan["class"], plan["box"]
    assert regions.boxes.shape == (2, 12, 4)  # 8, and up to 4 positives more
    assert (for_class.weight > 0.0).sum(dim=1).tolist() == [8, 8]
    assert for_class.sampled.tolist() == for_box.sampled.tolist() == [8.0, 8.0]
    assert ((for_box.weight > 0.0) == for_box.positive).all()
    assert (for_box.index[for_box.positive] < 2).all()
    assert (for_box.positive.sum(dim=1) >= 2).all()
    assert (for_box.positive.sum(dim=1) <= 4).all()
    assert torch.equal(regions.valid, (for_class.weight > 0.0) | for_box.positive)
    # A region drawn for the boxes alone is neither background nor positive of the class term.
    alone = for_box.positive & (for_class.weight == 0.0)
    assert alone.any()
    assert (for_class.index[alone] == IGNORE).all()


def test_sample_regions__the_class_sample_does_not_depend_on_the_boxes():
    seen = proposals()
    classes, boxes = near(seen, [3]), near(seen, [8, 20, 30])
    one, one_plan = sample_regions(seen, rule(), MATCHER, Supervision.uniform(classes, PROGRESS), KEYS)
    two, two_plan = sample_regions(seen, rule(), MATCHER, Supervision(classes, classes, boxes, PROGRESS), KEYS)
    for row in range(2):
        kept = two_plan["class"].weight[row] > 0.0
        assert torch.equal(two.boxes[row][kept], one.boxes[row])
        assert torch.equal(two_plan["class"].index[row][kept], one_plan["class"].index[row])


def test_sample_regions__equal_sets_in_two_objects_teach_alike():
    seen = proposals()
    taught = near(seen, [3, 8, 20])
    _, one = sample_regions(seen, rule(), MATCHER, Supervision.uniform(taught, PROGRESS), KEYS)
    _, two = sample_regions(seen, rule(), MATCHER, Supervision(taught, taught, replace(taught), PROGRESS), KEYS)
    assert torch.equal(two["box"].sampled, one["box"].sampled)
    assert torch.equal(two["box"].positive.sum(dim=1), one["box"].positive.sum(dim=1))


def test_sample_regions__a_row_does_not_depend_on_its_batch():
    seen = proposals()
    classes, boxes = near(seen, [3]), near(seen, [8, 20])
    classes.valid[0] = False
    supervision = Supervision(classes, classes, boxes, PROGRESS)
    regions, plan = sample_regions(seen, rule(), MATCHER, supervision, KEYS)
    alone = Supervision(classes[1:], classes[1:], boxes[1:], PROGRESS)
    one, one_plan = sample_regions(seen[1:], rule(), MATCHER, alone, KEYS[1:])
    assert torch.equal(regions.boxes[1:][regions.valid[1:]], one.boxes[one.valid])
    for term in ("class", "box"):
        assert torch.equal(plan[term].index[1:], one_plan[term].index)


@pytest.mark.parametrize("count", [0, 3])
def test_sample_regions__few_or_no_proposals_and_no_targets(count: int):
    nothing = Supervision(Targets.empty(2), Targets.empty(2), Targets.empty(2), PROGRESS)
    regions, plan = sample_regions(proposals(2, count), rule(), MATCHER, nothing, KEYS)
    assert regions.valid.sum(dim=1).tolist() == [count, count]
    assert plan["class"].sampled.tolist() == [float(count)] * 2
    assert not plan["box"].positive.any()


def test_sample_regions__every_set_that_teaches_a_term_adds_its_positives():
    seen = proposals()
    three = rule(boxes_by="boxes")
    sure = three.terms["box"].model_copy(update={"taught_by": "objectness"})
    three = three.model_copy(update={"terms": {**three.terms, "sure": sure, "also": three.terms["box"]}})
    supervision = Supervision(near(seen, [3, 5]), near(seen, [8]), near(seen, [20, 30]), PROGRESS)
    regions, plan = sample_regions(seen, three, MATCHER, supervision, KEYS)
    assert regions.boxes.shape == (2, 16, 4)  # 8, and up to 4 positives more of each further set
    assert plan["also"] is plan["box"]
    taught = {"class": supervision.classes, "box": supervision.boxes, "sure": supervision.objectness}
    for term, targets in taught.items():
        drawn = plan[term].positive & (plan[term].weight > 0.0)
        assert drawn.any(dim=1).all()
        own = targets.boxes.gather(1, plan[term].index.clamp(min=0)[..., None].expand(-1, -1, 4))
        iou = box_iou(regions.boxes[drawn], own[drawn]).diagonal()
        assert iou.min() >= 0.5
