import copy

import pytest
import torch
from torch import nn

from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.schedules.running_mean import RunningMeanConfig
from ssodkit.structures.predictions import Candidates
from ssodkit.structures.progress import Progress
from ssodkit.teachers.ema import EmaTeacher, EmaTeacherConfig

OK, NOT_OK = torch.tensor(True), torch.tensor(False)


@pytest.fixture
def make_pair(tiny_context):
    """Fields of the teacher's config -> a tiny student and the teacher made from it."""

    def make(**fields):
        context = tiny_context()
        student = context.detector.build(context)
        return student, EmaTeacherConfig(**fields).build(student, context)

    return make


def fill(network: nn.Module, value: float) -> None:
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(network.state_dict())


def is_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_ema__is_a_copy_of_the_student_when_built(make_pair):
    student, teacher = make_pair()
    assert is_same(student.state_dict(), teacher.network.state_dict())
    fill(student, 3.0)
    assert not is_same(student.state_dict(), teacher.network.state_dict())


def test_ema__before_each_step_it_is_the_mean_that_soft_teacher_prints(make_pair):
    student, _ = make_pair()
    fill(student, 1.0)  # the state at t = 0, of which the teacher is a copy
    teacher = EmaTeacher(EmaTeacherConfig(momentum=RunningMeanConfig(cap=0.999)), student)
    seen = [teacher.network.rpn.shared.bias[0].item()]
    for finished, value in enumerate([2.0, 4.0, 8.0, 16.0], start=1):
        fill(student, value)
        teacher.after_update(student, Progress(finished, 180_000), OK)
        seen.append(teacher.network.rpn.shared.bias[0].item())
    assert seen == pytest.approx([1.0, 1.5, 2.333333, 3.75, 6.2], abs=5e-7)


def test_ema__before_each_step_it_is_the_published_mean_of_mean_teacher(make_pair):
    student, _ = make_pair()
    fill(student, 2.0)
    teacher = EmaTeacher(EmaTeacherConfig(momentum=RunningMeanConfig(cap=0.9995)), student)
    seen = [teacher.network.rpn.shared.bias[0].item()]
    for finished, value in enumerate([4.0, 4.0, 0.0], start=1):
        fill(student, value)
        teacher.after_update(student, Progress(finished, 180_000), OK)
        seen.append(teacher.network.rpn.shared.bias[0].item())
    assert seen == pytest.approx([2.0, 3.0, 3.333333, 2.5], abs=5e-7)


def test_ema__a_student_that_is_not_finite_leaves_it_unchanged(make_pair):
    student, teacher = make_pair()
    before = state(teacher.network)
    fill(student, torch.nan)
    teacher.after_update(student, Progress(1, 10), NOT_OK)
    assert is_same(before, teacher.network.state_dict())


def test_ema__stays_in_eval_mode_when_the_method_around_it_trains(make_pair):
    student, teacher = make_pair()
    nn.ModuleList([student, teacher]).train()
    assert student.training
    assert not any(module.training for module in teacher.modules())


def test_ema__learns_nothing_by_gradient(make_pair, make_view):
    _, teacher = make_pair()
    seen = teacher.look(make_view("weak", [1]))
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not seen.stages.last.class_logits.requires_grad
    assert not seen.found.confidence.requires_grad


def test_ema__labels_with_the_training_proposals_unless_told_otherwise(make_pair, make_view):
    view = make_view("weak", [1])
    _, as_published = make_pair()
    _, as_tested = make_pair(proposals="test")
    assert as_published.look(view).stages.last.candidates.boxes.shape[1] == 24
    assert as_tested.look(view).stages.last.candidates.boxes.shape[1] == 20


def test_ema__a_number_keeps_the_best_proposals_after_suppression(make_pair, make_view):
    view = make_view("weak", [1])
    most, ten, many = (make_pair(proposals=count)[1].answer(view).last.candidates for count in ("test", 10, 1000))
    assert torch.equal(ten.boxes, most.boxes[:, :10])
    assert not torch.equal(ten.boxes, most.boxes[:, 10:20])
    assert torch.equal(many.boxes[:, :20], most.boxes)
    assert 20 < many.valid.sum() < 1000  # as many as there are; none is repeated
    assert torch.equal(many.valid, many.boxes.any(dim=-1))


def test_ema__its_score_threshold_replaces_the_detectors(make_pair, make_view):
    view = make_view("weak", [1, 2])
    _, everything = make_pair(score=0.0)
    _, nothing = make_pair(score=1.0)
    assert everything.look(view).found.valid.any()
    assert not nothing.look(view).found.valid.any()


def test_ema__answers_about_regions_of_what_it_has_seen(make_pair, make_view):
    _, teacher = make_pair()
    seen = teacher.look(make_view("weak", [1, 2]))
    regions = Candidates(torch.tensor([[[4.0, 4.0, 30.0, 40.0]]] * 2), torch.ones(2, 1, dtype=torch.bool))
    answers = teacher.score_regions(seen.features, regions)
    assert answers.class_logits.shape == (2, 1, 4)
    assert not answers.class_logits.requires_grad


def test_ema__survives_a_restart(make_pair):
    student, teacher = make_pair(momentum=ConstantConfig(value=0.5))
    fill(student, 2.0)
    teacher.after_update(student, Progress(1, 10), OK)
    _, restarted = make_pair()
    restarted.load_state_dict(teacher.state_dict())
    assert is_same(teacher.network.state_dict(), restarted.network.state_dict())


def test_ema__the_statistics_of_batch_norms_that_train_follow_the_student(tiny_context, semi_batch):
    backbone = {"type": "timm", "name": "test_resnet", "weights": "random", "strides": [4, 8], "frozen_stages": 0}
    context = tiny_context(backbone={**backbone, "batch_norm": "train"})
    student = context.detector.build(context)
    teacher = EmaTeacherConfig(momentum=ConstantConfig(value=0.75)).build(student, context)
    both = nn.ModuleList([student, teacher]).train()
    (mine, *_), (theirs, *_) = (
        [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)] for network in (teacher, student)
    )
    before = mine.running_mean.clone()
    view = semi_batch.labeled.views["labeled"]
    student.extract(view)
    teacher.look(view)
    assert torch.equal(mine.running_mean, before)  # looking moves no statistics
    assert not torch.equal(theirs.running_mean, before)
    teacher.after_update(student, Progress(1, 10), OK)
    torch.testing.assert_close(mine.running_mean, 0.75 * before + 0.25 * theirs.running_mean)
    assert mine.num_batches_tracked.item() == theirs.num_batches_tracked.item() == 1
    assert both.training


@pytest.mark.parametrize("given", ["0", "1000001", "few", "true", "[640]"])
def test_recipe__what_is_no_count_of_proposals_is_refused_by_one_sentence(given):
    with pytest.raises(RecipeError) as caught:
        load_recipe("humble_teacher", [f"method.teacher.proposals={given}"])
    assert "a count of proposals is `training`, `test`, or a number from 1 to 1,000,000" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
