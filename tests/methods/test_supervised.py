import pytest
import torch
from tiny import with_stored_labels

from ssodkit.methods.supervised import SupervisedConfig
from ssodkit.schedules.constant import ConstantConfig
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses, Term
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


@pytest.fixture
def stored_batch(semi_batch):
    return with_stored_labels(semi_batch)


def test_supervised__stored_labels_teach_with_their_own_terms(tiny_context, stored_batch):
    config = SupervisedConfig(unlabeled_weight=ConstantConfig(value=2.0), loss_scale=0.5)
    assert (config.learns_stored, config.uses_unlabeled(START)) == (True, True)
    method = config.build(tiny_context())
    losses = method.step(stored_batch, START).losses
    terms = ("rpn/class", "rpn/box", "roi/class", "roi/box")
    assert list(losses) == [f"{stream}/{term}" for stream in ("labeled", "unlabeled") for term in terms]
    alone = SupervisedConfig().build(tiny_context())
    labeled = alone.step(stored_batch, START).losses
    as_labeled = alone.step(SemiBatch(stored_batch.unlabeled.only("strong"), None), START).losses
    for term in terms:
        one, both = labeled.terms[f"labeled/{term}"], losses.terms[f"labeled/{term}"]
        other, mine = as_labeled.terms[f"labeled/{term}"], losses.terms[f"unlabeled/{term}"]
        assert (both.factor, mine.factor) == (0.5 * one.factor, 1.0 * other.factor)
        torch.testing.assert_close((both.sum, both.denominator), (one.sum, one.denominator))
        torch.testing.assert_close((mine.sum, mine.denominator), (other.sum, other.denominator))


@pytest.mark.parametrize(("scale", "total"), [(0.5, 1.125), (1.0, 2.25)])
def test_supervised__combines_the_streams_as_published(scale, total):
    config = SupervisedConfig(unlabeled_weight=ConstantConfig(value=2.0), loss_scale=scale)

    published = {"labeled": (0.4, 0.2, 0.1, 0.05), "unlabeled": (0.3, 0.1, 0.2, 0.15)}
    streams = {
        name: Losses({f"{name}/{place}": Term(torch.tensor(one), torch.ones(())) for place, one in enumerate(numbers)})
        for name, numbers in published.items()
    }
    losses = config.combine(streams, START)
    assert sum(values(losses).values()) == pytest.approx(total, abs=1e-6)


def test_supervised__images_whose_stored_boxes_left_the_view_train_on(tiny_context, semi_batch):
    method = SupervisedConfig(unlabeled_weight=ConstantConfig(value=2.0)).build(tiny_context())
    losses = method.step(semi_batch, START).losses
    assert values(losses)["unlabeled/rpn/box"] == 0.0
    torch.stack(list(losses.values(losses.denominators()).values())).sum().backward()
    assert all(parameter.grad is not None for parameter in method.student.parameters())


def test_supervised__no_stored_label_at_all_leaves_the_labeled_terms(tiny_context, semi_batch):
    method = SupervisedConfig(unlabeled_weight=ConstantConfig(value=2.0)).build(tiny_context())
    losses = method.step(SemiBatch(semi_batch.labeled, None), START).losses
    assert {name.split("/")[0] for name in losses} == {"labeled"}


def test_supervised__reads_no_unlabeled_image_while_its_weight_is_0():
    written = {"unlabeled_weight": {"type": "step", "before": 0.0, "after": 1.0, "at": 5}}
    config = SupervisedConfig.model_validate(written)
    assert [config.uses_unlabeled(Progress(step, 10)) for step in (4, 5)] == [False, True]
