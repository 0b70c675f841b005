"""What runs cells: processes on this machine, an array of Slurm jobs, or Ray. Each yields how its cells ended."""

import importlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from ssodkit.bench.cell import POLL, Attempt, Ending, Job, begin, run_cell
from ssodkit.engine.stopping import Stopping
from ssodkit.errors import Interrupted, RecipeError, TrainingError

ADVICE = "what was trained is kept: go on with the same command"
LIMIT = 240
"""Minutes that a Slurm job gets where nobody says otherwise; submitit would give it 5."""
TIME_IS_OVER = "the time of its Slurm job is over: start again to go on, or give --engine-set timeout_min=... more"

Slot = Mapping[str, str]
"""The environment of the cells that run in it, as far as it differs from ours."""


@dataclass(frozen=True)
class Listener:
    """What is told while cells run."""

    begun: Callable[[Attempt], None]
    waits: Callable[[Sequence[Job]], None]
    """All that is left is trained by others."""
    tick: Callable[[], None]
    """Every now and then."""


def make_slots(parallel: int, device: str | None, processes: int = 1) -> list[Slot]:
    """So many places on this machine, for cells of so many processes each: the cores of the CPU are divided.

    GPUs are dealt out in turn. Cells of several processes share none, so that there may be fewer places, but one.
    """
    if parallel == 1:
        return [{}]
    share = max(1, _cores() // (parallel * processes))
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(share)}
    gpus = _gpus() if device in (None, "cuda") else []
    if not gpus:
        return [threads] * parallel
    if processes == 1:
        return [threads | {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} for place in range(parallel)]
    firsts = range(0, min(parallel, max(1, len(gpus) // processes)) * processes, processes)
    return [threads | {"CUDA_VISIBLE_DEVICES": ",".join(gpus[first : first + processes])} for first in firsts]


def run_here(jobs: Sequence[Job], slots: Sequence[Slot], listener: Listener) -> Iterator[Ending]:
    """Run cells on this machine, as many at once as there are slots.

    Cells that other processes train are waited for: only then the suite is whole, and what another process gives up
    is gone on with. After a signal all running cells stop with a checkpoint, and Interrupted is raised.
    """
    left, free = deque(jobs), list(slots)
    running: list[tuple[Attempt, Slot]] = []
    with Stopping(lambda: ADVICE) as stopping:
        try:
            while (left or running) and stopping.received is None:
                claimed: list[Job] = []
                while left and free:
                    begun = begin(job := left.popleft(), free[-1])
                    if isinstance(begun, Attempt):
                        running.append((begun, free.pop()))
                        listener.begun(begun)
                    elif begun.how == "claimed":
                        claimed.append(job)
                    else:
                        yield begun
                if claimed and not running:
                    listener.waits(claimed)
                left.extend(claimed)
                for attempt, slot in tuple(running):
                    ending = attempt.poll()
                    if ending is not None:
                        running.remove((attempt, slot))
                        free.append(slot)
                        yield ending
                listener.tick()
                time.sleep(POLL)
        finally:
            with ExitStack() as last_first:  # runs each of them, also after one that raises
                for attempt, _ in running:
                    last_first.callback(attempt.wait)
                for attempt, _ in running:
                    last_first.callback(attempt.stop, stopping.received or signal.SIGTERM)
        if stopping.received is not None:
            raise Interrupted(f"stopped; {ADVICE}", stopping.received)


def run_on_slurm(
    jobs: Sequence[Job], settings: Mapping[str, Any], parallel: int | None, listener: Listener
) -> Iterator[Ending]:
    """Submit cells as one job array through submitit, and wait for them; they go on without us.

    `settings` are submitit's; `cluster: local` makes processes of this machine of the jobs. A cell takes a GPU per
    process. One whose time is over has stopped with a checkpoint.
    """
    submitit = _import_extra("submitit", "slurm")
    cluster = settings.get("cluster", "slurm")
    given = {name: value for name, value in settings.items() if name != "cluster"}
    usual: dict[str, Any] = {"name": "ssodkit", "timeout_min": LIMIT}
    if cluster == "slurm":
        gpus = None if jobs[0].device == "cpu" else jobs[0].processes
        usual |= {"gpus_per_node": gpus, "slurm_array_parallelism": parallel}
    elif parallel is not None:
        raise RecipeError(f"with cluster={cluster} submitit starts all cells at once; leave --parallel out")
    else:
        usual["gpus_per_node"] = 0 if jobs[0].device == "cpu" else len(_gpus())
    try:
        executor = submitit.AutoExecutor(folder=jobs[0].folder.path.parent / ".submitit", cluster=cluster)
        executor.update_parameters(**(usual | given))
        submitted = dict(zip(executor.map_array(run_cell, jobs), jobs, strict=True))
    except (
        RuntimeError,
        ValueError,
        NameError,
        TypeError,
        AssertionError,
        submitit.core.utils.FailedJobError,
    ) as error:
        raise TrainingError(f"the cells cannot be submitted to '{cluster}': {_first_line(error)}") from error
    advice = "; the jobs that were submitted go on, and `--list` shows how far they are"
    with Stopping() as stopping, stopping.at_once(advice):
        while submitted:
            for one in [one for one in submitted if one.done()]:
                job = submitted.pop(one)
                problem = one.exception()
                yield one.result() if problem is None else _slurm_ending(job, str(problem))
            listener.tick()
            time.sleep(POLL)


def run_on_ray(
    jobs: Sequence[Job], settings: Mapping[str, Any], parallel: int | None, listener: Listener
) -> Iterator[Ending]:
    """Run cells as tasks of the Ray that is there, or of one for this machine.

    `settings` are a task's options, such as `num_gpus`; `address` is where Ray is. Ray decides how many run at once;
    `parallel` is an upper limit.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would call home
    ray = _import_extra("ray", "ray")
    options = {"max_retries": 0, **settings}
    address = options.pop("address", None)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        has_gpus = jobs[0].device != "cpu" and "GPU" in ray.cluster_resources()
        options.setdefault("num_gpus", jobs[0].processes if has_gpus else 0)
        task = ray.remote(run_cell).options(**options)
    except (RuntimeError, ValueError, TypeError, ConnectionError) as error:
        raise TrainingError(f"the cells cannot be given to Ray: {_first_line(error)}") from error
    left = deque(jobs)
    running: dict[Any, Job] = {}
    with Stopping(lambda: ADVICE) as stopping:
        try:
            while (left or running) and stopping.received is None:
                while left and (parallel is None or len(running) < parallel):
                    job = left.popleft()
                    running[task.remote(job)] = job
                for one in ray.wait(list(running), timeout=1.0)[0]:
                    yield _ray_ending(ray, one, running.pop(one))
                listener.tick()
        finally:
            for one in running:  # interrupts their processes, which stop their trainings
                ray.cancel(one)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=60.0)
            ray.shutdown()
        if stopping.received is not None:
            raise Interrupted(f"stopped; {ADVICE}", stopping.received)


def _slurm_ending(job: Job, problem: str) -> Ending:
    """How a cell ended whose job did not end by itself; `problem` is what submitit says of that."""
    if "timed-out" in problem or "(state: TIMEOUT)" in problem:
        return Ending(job.name, "stopped", TIME_IS_OVER)
    return Ending(job.name, "failed", _first_line(problem))


def _ray_ending(ray: Any, one: Any, job: Job) -> Ending:
    try:
        ending: Ending = ray.get(one)
    except ray.exceptions.RayError as error:
        return Ending(job.name, "failed", _first_line(error))
    return ending


def _import_extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise TrainingError(
            f"`--engine {extra}` needs {module}, which is not installed: `pip install 'ssodkit[{extra}]'`"
        ) from error


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """As `CUDA_VISIBLE_DEVICES` names those that we may use."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def _first_line(error: BaseException | str) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
