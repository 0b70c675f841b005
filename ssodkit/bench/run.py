"""`ssodkit bench`: every cell of a suite that has no result file is trained; what is done stays done."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ssodkit.bench.cell import Ending, Job
from ssodkit.bench.engines import Listener, Slot, make_slots, run_here, run_on_ray, run_on_slurm
from ssodkit.bench.folders import RUNS, CellFolder
from ssodkit.bench.news import News, print_list
from ssodkit.bench.progress import Status, Watch
from ssodkit.bench.suite import Cell, Suite, cells_of, choose, results_folder
from ssodkit.engine.output import outliving_readers
from ssodkit.errors import RecipeError

Engine = Literal["local", "slurm", "ray"]
GOES_ON = "nobody reads any more how far the suite is; its trainings go on"


@dataclass(frozen=True)
class Work:
    """The cells of a suite that are meant, and where their files lie."""

    suite: Suite
    cells: tuple[Cell, ...]
    results: Path
    runs: Path

    def watch(self) -> Watch:
        """What tells the state of each cell, as often as it is asked."""
        return Watch(self.cells, self.runs, self.results)


def open_work(
    suite: Path | str,
    only: Iterable[str] = (),
    results: Path | None = None,
    runs: Path | None = None,
    trust_plugins: bool = False,
) -> Work:
    """A suite, narrowed to the cells that `only` chooses. Raises RecipeError for what is wrong with either."""
    read, cells = cells_of(suite, trust_plugins)
    return Work(read, choose(cells, only), results or results_folder(suite), runs or RUNS)


def list_cells(work: Work, parallel: int | None = None) -> None:
    """Print the state of each cell, and an estimate of the time left."""
    watch = work.watch()
    print_list(work.suite, watch.look(), watch.refused, parallel or 1)


def bench(
    work: Work,
    parallel: int | None = None,
    engine: Engine = "local",
    settings: Iterable[str] = (),
    device: str | None = None,
    processes: int = 1,
) -> tuple[Ending, ...]:
    """Train the cells that have no result file; those that have none in the end.

    Locally, `parallel` cells run at once, one where it is None; on other engines it is an upper limit. Each is trained
    by so many `processes`. `settings` are the engine's, as `key=value`. Raises Interrupted after a signal.
    """
    options = _read_settings(engine, settings)
    watch = work.watch()
    statuses, warnings = watch.look(), watch.refused
    unread = [Ending(one.cell.name, "failed", one.error or "") for one in statuses if _has_unreadable(one, work)]
    skipped = {one.cell.name for one in statuses if one.state == "done"} | {one.name for one in unread}
    jobs = [Job.of(cell, work.runs, work.results, device, processes) for cell in work.cells if cell.name not in skipped]
    slots = make_slots(parallel or 1, device, processes) if jobs and engine == "local" else []
    at_once = len(slots) or parallel or (1 if engine == "local" else len(statuses))
    if slots and len(slots) < (parallel or 1):
        warnings += (f"only {len(slots)} of {parallel} cells run at once: each takes {processes} GPUs",)
    endings = list(unread)
    with outliving_readers(GOES_ON), News(work.suite, statuses, warnings, watch, at_once) as news:
        for ending in _run(jobs, engine, parallel, options, slots, news.listener) if jobs else ():
            news.ended(ending)
            endings.append(ending)
        undone = tuple(ending for ending in endings if ending.how != "done")
        news.conclude(undone, {cell.name: CellFolder(work.runs / cell.name).log for cell in work.cells})
    return undone


def _has_unreadable(status: Status, work: Work) -> bool:
    """Whether a file that is no result lies where the cell's would be: it is not overwritten."""
    return status.state == "failed" and (work.results / f"{status.cell.name}.json").exists()


def _run(
    jobs: Sequence[Job],
    engine: Engine,
    parallel: int | None,
    options: Mapping[str, Any],
    slots: Sequence[Slot],
    listener: Listener,
) -> Iterator[Ending]:
    if engine == "slurm":
        return run_on_slurm(jobs, options, parallel, listener)
    if engine == "ray":
        return run_on_ray(jobs, options, parallel, listener)
    return run_here(jobs, slots, listener)


def _read_settings(engine: Engine, settings: Iterable[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name:
            raise RecipeError(f"--engine-set is written key=value, such as timeout_min=60, not '{setting}'")
        try:
            options[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise RecipeError(f"--engine-set {setting}: '{value}' is no YAML; put text in quotes") from error
    if options and engine == "local":
        raise RecipeError("--engine-set is for the engines slurm and ray; the local one has --parallel and --device")
    return options
