"""What each of two processes does in `test_distributed.py`; started by torch's launcher, with a folder to work in.

The folder holds `cases.pt`: for each name a recipe, a global batch with two images of each kind, and a method's state.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch

from ssodkit.data import pictures
from ssodkit.engine.build import build_method
from ssodkit.engine.checkpoint import read_step
from ssodkit.engine.distributed import open_processes
from ssodkit.engine.label import label
from ssodkit.engine.train import resume, train
from ssodkit.engine.update import Updater
from ssodkit.errors import DataError, Interrupted, TrainingError
from ssodkit.ops.collect import gather_over_processes, sum_over_processes
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.progress import Progress


def update(case, processes):
    """Half of the batch each; in the process `poisoned`, the student's features are no numbers."""
    recipe = load_recipe(case["recipe"])
    method = build_method(recipe, case["num_classes"], load_weights=False)
    method.load_state_dict(case["method"])
    if case.get("poisoned") == processes.rank:
        method.student.neck.register_forward_hook(lambda module, given, maps: [each * torch.nan for each in maps])
    updater = Updater(method, recipe.engine, processes)
    numbers = updater((case["batch"][processes.rank : processes.rank + 1],), Progress(0, 10)).read()
    gradients = {name: weight.grad for name, weight in method.named_parameters() if weight.grad is not None}
    return {"numbers": numbers, "gradients": gradients, "method": method.state_dict()}


def disagree(processes):
    """The message of the error when both have another fold."""
    try:
        processes.agree({"recipe": "same", "labeled fold": f"fold of {processes.rank}"})
    except TrainingError as error:
        return str(error)
    return None


def fail(rank):
    raise TrainingError(f"not made by {rank}")


def meet_alone(processes):
    """What the first process made alone, and the message of the error that it met alone."""
    made = processes.first_alone(lambda: f"made by {processes.rank}")
    try:
        processes.first_alone(lambda: fail(processes.rank))
    except TrainingError as error:
        return [made, str(error)]
    return [made, None]


def send_once_it_trains(run):
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 3:
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGINT)


def stop_by_signal(recipe, run, rank):
    """Only the second process gets a signal; the message and signal with which each of them stops."""
    if rank == 1:
        threading.Thread(target=send_once_it_trains, args=(run,), daemon=True).start()
    try:
        train(recipe, run)
    except Interrupted as error:
        return [str(error), error.signal]
    return None


def meet_a_broken_image(folder, processes):
    """Train, train with an image that only one process uses broken, skip it, and go on; the message of the one that
    stopped, and where it did."""
    recipe, file = load_recipe(folder / "broken.yaml"), Path((folder / "broken.txt").read_text())
    pictures.KEPT = 0  # as in a large set, only the ends of files are looked at before
    train(recipe, folder / "whole", stop_after=4)
    content, message = file.read_bytes(), None
    processes.first_alone(lambda: file.write_bytes(content[:1000] + bytes(1000) + content[2000:]))
    try:
        train(recipe, folder / "broken", stop_after=4)
    except DataError as error:
        message = str(error)
    step = read_step(folder / "broken" / "checkpoints" / "last")
    skips = load_recipe(folder / "broken.yaml", ["data.broken={skip: true, at_most: 1}"])
    train(skips, folder / "skipped", stop_after=4)
    processes.gather(None)
    processes.first_alone(lambda: file.write_bytes(content))
    resume(folder / "broken", stop_after=4)
    return [message, step]


def main(folder):
    torch.set_num_threads(1)
    cases = torch.load(folder / "cases.pt", weights_only=False)
    with open_processes("cpu") as processes:
        rank = processes.rank
        answers = {
            "each": gather_over_processes(torch.tensor([[1.0, rank]])).tolist(),
            "sum": sum_over_processes(torch.tensor([1.0, rank])).tolist(),
            "gathered": processes.gather(f"process {rank}"),
            "alone": meet_alone(processes),
            "disagreement": disagree(processes),
            **{name: update(case, processes) for name, case in cases.items()},
        }
        train(load_recipe(folder / "short.yaml"), folder / "short")
        label(folder / "short", folder / "labels.json")
        answers["broken"] = meet_a_broken_image(folder, processes)
        answers["stopped"] = stop_by_signal(load_recipe(folder / "long.yaml"), folder / "long", rank)
    torch.save(answers, folder / f"answers_{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
