import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ssodkit.engine.distributed import Processes
from ssodkit.engine.update import Updater
from ssodkit.structures.progress import Progress

CPU = Processes(torch.device("cpu"))


def weights(method):
    return torch.cat([parameter.detach().flatten() for parameter in method.student.parameters()])


def run(method, config, batches, **options):
    updater = Updater(method, config, CPU)
    return [updater(batch, Progress(step, 10), **options).read() for step, batch in enumerate(batches)]


def test_updater__takes_plain_sgd_steps(method, make_batch, make_config):
    expected = type(method)()
    optimizer = torch.optim.SGD(expected.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, foreach=True)
    for ids in ([1, 2], [3, 4], [5, 6]):
        optimizer.zero_grad()
        (expected.step(make_batch(ids), Progress(0, 10)).losses.terms["labeled/square"].sum / 2).backward()
        optimizer.step()
    run(method, make_config(), [(make_batch(ids),) for ids in ([1, 2], [3, 4], [5, 6])])
    torch.testing.assert_close(weights(method), weights(expected), rtol=0, atol=1e-7)
    assert method.updates == 3


def test_updater__clips_to_the_norm(method, make_batch, make_config):
    expected = type(method)()
    (expected.step(make_batch([1]), Progress(0, 10)).losses.terms["labeled/square"].sum).backward()
    norm = clip_grad_norm_(expected.student.parameters(), 0.01)
    torch.optim.SGD(expected.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4).step()
    (numbers,) = run(method, make_config(clip_norm=0.01), [(make_batch([1]),)])
    assert numbers.gradient_norm == pytest.approx(norm.item(), rel=1e-6)
    assert norm > 0.01
    torch.testing.assert_close(weights(method), weights(expected), rtol=0, atol=1e-8)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_updater__clips_each_number_of_the_mean_gradient(method, make_batch, make_config, precision):
    expected = type(method)()
    (expected.step(make_batch([1, 2]), Progress(0, 10)).losses.terms["labeled/square"].sum / 2).backward()
    largest = torch.cat([weight.grad.flatten() for weight in expected.student.parameters()]).abs().max().item()
    clip_grad_value_(expected.student.parameters(), 0.1 * largest)
    torch.optim.SGD(expected.student.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4).step()
    config = make_config(clip_value=0.1 * largest, precision=precision)
    batch = (make_batch([1]), make_batch([2]))
    updates = [each.is_updated for each in run(method, config, [batch] * (1 if precision == "fp32" else 2))]
    assert updates == ([True] if precision == "fp32" else [False, True])  # the first scale of fp16 is too large
    tolerance = 1e-8 if precision == "fp32" else 1e-3 * largest
    torch.testing.assert_close(weights(method), weights(expected), rtol=0, atol=tolerance)


def test_updater__accumulates_the_mean_of_its_micro_batches(method, make_batch, make_config):
    whole = type(method)()
    (together,) = run(whole, make_config(), [(make_batch([1, 2, 3, 4]),)])
    (apart,) = run(method, make_config(), [(make_batch([1, 2]), make_batch([3, 4]))])
    torch.testing.assert_close(weights(method), weights(whole), rtol=0, atol=1e-7)
    assert apart.losses["labeled/square"] == pytest.approx(together.losses["labeled/square"], rel=1e-6)
    assert apart.gradient_norm == pytest.approx(together.gradient_norm, rel=1e-5)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updater__what_is_not_finite_changes_nothing_from_then_on(method, make_batch, make_config, poison, optimizer):
    updater = Updater(method, make_config(optimizer={"type": optimizer}), CPU)
    updater((make_batch([1]),), Progress(0, 10))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    bad = updater((make_batch([2, 3], [1.0, poison]),), Progress(1, 10)).read()
    after = updater((make_batch([4]),), Progress(2, 10)).read()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert (bad.is_halted, bad.is_updated) == (after.is_halted, after.is_updated) == (True, False)
    assert bad.not_finite == (("labeled/square",) if poison != -1.0 else ())
    assert after.not_finite == ()


def test_updater__the_first_step_may_be_the_bad_one(method, make_batch, make_config):
    before = weights(method)
    (numbers,) = run(method, make_config(), [(make_batch([1], [torch.nan]),)])
    assert numbers.is_halted
    assert torch.equal(weights(method), before)


def test_updater__an_overflow_under_fp16_is_a_skipped_step(method, make_batch, make_config):
    before = weights(method)
    bad, good = run(method, make_config(precision="fp16"), [(make_batch([1], [-1.0]),), (make_batch([2]),)])
    assert (bad.is_updated, bad.is_halted, bad.loss_scale) == (False, False, 32768.0)
    assert (good.is_updated, good.is_halted, good.loss_scale) == (True, False, 32768.0)
    assert not torch.equal(weights(method), before)
    assert method.updates == 1


def test_updater__fp16_halts_once_its_scale_falls_below_1(method, make_batch, make_config):
    overflow = (make_batch([1], [-1.0]),)
    numbers = run(method, make_config(precision="fp16"), [overflow] * 18)
    assert [each.is_halted for each in numbers] == [False] * 16 + [True] * 2
    assert numbers[16].loss_scale == 0.5


def test_updater__a_loss_that_is_not_finite_halts_under_fp16_too(method, make_batch, make_config):
    (numbers,) = run(method, make_config(precision="fp16"), [(make_batch([1], [torch.inf]),)])
    assert numbers.is_halted
    assert numbers.loss_scale == 65536.0


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 1e-3), ("fp16", 1e-4)])
def test_updater__low_precision_stays_near_fp32(method, make_batch, make_config, precision, tolerance):
    exact = type(method)()
    run(exact, make_config(), [(make_batch([1, 2]),)])
    run(method, make_config(precision=precision), [(make_batch([1, 2]),)])
    difference = (weights(method) - weights(exact)).abs().max()
    assert 0 < difference < tolerance


def test_updater__a_wish_to_stop_is_read_with_the_numbers(method, make_batch, make_config):
    (numbers,) = run(method, make_config(), [(make_batch([1]),)], wish_to_stop=True)
    assert numbers.wish_to_stop


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updater__the_layout_of_weights_changes_nothing_also_after_a_restart(
    method, make_batch, make_config, optimizer
):
    batches = [(make_batch([step, step + 1]),) for step in range(4)]
    config = make_config(optimizer={"type": optimizer}, lr=0.01)
    run(method, config, batches)
    other = type(method)().to(memory_format=torch.channels_last)
    first = Updater(other, config, CPU)
    for step in range(2):
        first(batches[step], Progress(step, 10))
    again = type(method)().to(memory_format=torch.channels_last)
    again.load_state_dict(other.state_dict())
    second = Updater(again, config, CPU)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    for step in range(2, 4):
        second(batches[step], Progress(step, 10))
    torch.testing.assert_close(weights(again), weights(method), rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_updater__asks_the_host_nothing(method, make_batch, make_config, host_questions, precision):
    updater = Updater(method, make_config(precision=precision, clip_norm=1.0), CPU)
    updater((make_batch([1]),), Progress(0, 10))
    batches = make_batch([2]), make_batch([3])
    with host_questions() as asked:
        updater(batches, Progress(1, 10))
    assert not asked
    with host_questions() as asked:
        torch.ones(1).item()
    assert asked  # the counter counts


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_updater__on_a_gpu_waits_for_nothing_and_learns_the_same(method, make_batch, make_config, optimizer):
    config = make_config(optimizer={"type": optimizer}, lr=0.01, clip_norm=1.0)
    batches = [(make_batch([step, step + 1]),) for step in range(3)]
    expected = type(method)()
    run(expected, config, batches)
    gpu = torch.device("cuda", 0)
    updater = Updater(method.to(gpu), config, Processes(gpu))
    on_gpu = [tuple(batch.to(gpu) for batch in micro) for micro in batches]
    updater(on_gpu[0], Progress(0, 10)).read()  # the first call sets kernels up
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcomes = [updater(on_gpu[step], Progress(step, 10)) for step in (1, 2)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(outcome.read().is_updated for outcome in outcomes)
    torch.testing.assert_close(weights(method).cpu(), weights(expected), rtol=0, atol=1e-5)
