from dataclasses import replace

import pytest
import torch

from ssodkit.engine.distributed import Processes
from ssodkit.engine.pace import Pace, peak_memory
from ssodkit.engine.update import Updater
from ssodkit.structures.progress import Progress

ALONE = Processes(torch.device("cpu"))


class Clock:
    """Tells the time that the test lets pass."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def slowly(batches, clock, seconds):
    for batch in batches:
        clock.now += seconds
        yield batch


def test_pace__averages_losses_and_tells_time_of_data_from_time_of_steps(method, make_batch, make_config):
    clock = Clock()
    pace, updater = Pace(ALONE, clock), Updater(method, make_config(), ALONE)
    losses, outcomes = [], []
    data = [(make_batch([1, 2]),), (make_batch([3, 4]),)]
    for step, batches in enumerate(pace.watch(slowly(data, clock, 0.5))):
        outcomes.append(updater(batches, Progress(step, 10)))
        clock.now += 0.25
        pace.lap()
        with pace.paused():
            clock.now += 16.0
    for outcome in outcomes:
        numbers = outcome.read()
        losses.append(numbers.losses["labeled/square"])
        pace.add(outcome, numbers)
    line, speed, left = pace.line(), pace.speed(), pace.time_left(100)
    numbers = pace.take()
    assert numbers["losses"]["labeled/square"] == pytest.approx(sum(losses) / 2)
    assert numbers["data_seconds"] == 0.5
    assert numbers["step_seconds"] == 0.75
    assert numbers["images_per_second"] == pytest.approx(2 / 0.75)
    assert numbers["lr"] == 0.1
    assert numbers["memory_gb"] > 0.05
    assert line == f"loss {sum(losses) / 2:.3f} (labeled {sum(losses) / 2:.3f})"
    assert numbers["pseudo_boxes_per_image"] is None
    assert speed == f"{2 / 0.75:.1f} images/s"
    assert left.total_seconds() == 75


def test_pace__starts_afresh_after_each_line(method, make_batch, make_config):
    pace, updater = Pace(ALONE), Updater(method, make_config(), ALONE)
    for step, ids in enumerate(([1], [2])):
        outcome = updater((make_batch(ids),), Progress(step, 10))
        pace.lap()
        numbers = outcome.read()
        pace.add(outcome, numbers)
        assert pace.take()["losses"] == numbers.losses


def test_pace__a_line_that_a_stop_cuts_in_two_averages_over_all_its_steps(method, make_batch, make_config):
    clock = Clock()
    pace, updater, losses = Pace(ALONE, clock), Updater(method, make_config(), ALONE), []
    for step in range(3):
        if step == 2:
            state = pace.state_dict()
            clock.now += 1000.0  # between the stop and the resume
            pace = Pace(ALONE, clock)
            pace.load_state_dict(state)
        outcome = updater((make_batch([step]),), Progress(step, 10))
        clock.now += 0.25
        pace.lap()
        pace.add(outcome, outcome.read())
        losses.append(outcome.read().losses["labeled/square"])
    numbers = pace.take()
    assert numbers["losses"]["labeled/square"] == sum(losses) / 3
    assert (numbers["step_seconds"], numbers["images_per_second"]) == (0.25, 4.0)


def test_pace__pseudo_boxes_are_averaged_over_the_steps_that_had_unlabeled_images(method, make_batch, make_config):
    pace, updater = Pace(ALONE), Updater(method, make_config(), ALONE)
    for step, pseudo_boxes in enumerate((None, 1.0, 2.0)):
        outcome = updater((make_batch([1]),), Progress(step, 10))
        pace.lap()
        pace.add(outcome, replace(outcome.read(), pseudo_boxes=pseudo_boxes))
    assert pace.line().endswith("  1.50 pseudo-boxes/image")
    assert pace.take()["pseudo_boxes_per_image"] == 1.5


def test_peak_memory__is_counted_in_bytes():
    assert peak_memory(torch.device("cpu")) > 50e6
