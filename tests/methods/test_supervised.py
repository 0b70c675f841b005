import pytest
import torch

from ssodkit.methods.supervised import SupervisedConfig
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets
from ssodkit.teachers.ema import EmaTeacherConfig

START = Progress(0, 10)


def values(losses):
    return {name: value.item() for name, value in losses.values(losses.denominators()).items()}


def test_supervised__has_the_four_terms_of_the_labeled_images(tiny_context, semi_batch):
    method = SupervisedConfig().build(tiny_context())
    losses = method.step(semi_batch, START).losses
    assert list(losses) == ["labeled/rpn/class", "labeled/rpn/box", "labeled/roi/class", "labeled/roi/box"]
    assert all(value > 0.0 for value in values(losses).values())


def test_supervised__never_reads_unlabeled_images(tiny_context, semi_batch):
    config = SupervisedConfig()
    method = config.build(tiny_context())
    assert not config.uses_unlabeled(START)
    without = SemiBatch(semi_batch.labeled, None)
    assert values(method.step(without, START).losses) == values(method.step(semi_batch, START).losses)


def test_supervised__learns(tiny_context, semi_batch):
    method = SupervisedConfig().build(tiny_context())
    optimizer = torch.optim.SGD(method.parameters(), lr=0.01, momentum=0.9)
    totals = []
    for step in range(12):
        losses = method(semi_batch, Progress(step, 12)).losses
        total = torch.stack(list(losses.values(losses.denominators()).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]


def test_supervised__all_labeled_views_teach(tiny_context, semi_batch, make_view, make_targets):
    method = SupervisedConfig().build(tiny_context())
    targets = semi_batch.labeled.targets["labeled"]
    views = {"first": semi_batch.labeled.views["labeled"], "second": make_view("second", [1, 2])}
    both = SemiBatch(Stream(views, {"first": targets, "second": targets}), None)
    one, two = method.step(semi_batch, START).losses, method.step(both, START).losses
    assert two.terms["labeled/rpn/class"].denominator == 2 * one.terms["labeled/rpn/class"].denominator


def test_supervised__images_without_boxes_train_on(tiny_context, semi_batch):
    method = SupervisedConfig().build(tiny_context())
    batch = SemiBatch(Stream(semi_batch.labeled.views, {"labeled": Targets.empty(2)}), None)
    losses = method.step(batch, START).losses
    torch.stack(list(losses.values(losses.denominators()).values())).sum().backward()
    assert values(losses)["labeled/rpn/box"] == 0.0
    assert all(parameter.grad is not None for parameter in method.student.parameters())


def test_supervised__owns_one_network_or_also_its_average(tiny_context):
    assert list(SupervisedConfig().build(tiny_context()).networks()) == ["student"]
    method = SupervisedConfig(teacher=EmaTeacherConfig()).build(tiny_context())
    assert list(method.networks()) == ["student", "teacher"]


def test_supervised__its_average_follows(tiny_context):
    method = SupervisedConfig(teacher=EmaTeacherConfig()).build(tiny_context())
    before = method.teacher.network.rpn.shared.weight.clone()
    torch.nn.init.zeros_(method.student.rpn.shared.weight)
    method.after_update(Progress(1, 10), torch.tensor(True))
    torch.testing.assert_close(method.teacher.network.rpn.shared.weight, before / 2)


def test_supervised__a_teacher_may_be_left_out_of_a_recipe():
    assert SupervisedConfig.model_validate({"type": "supervised", "teacher": None}).teacher is None
    with pytest.raises(ValueError, match="no teacher 'emma'"):
        SupervisedConfig.model_validate({"type": "supervised", "teacher": {"type": "emma"}})
