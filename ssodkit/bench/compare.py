"""One recipe beside its control: the same labels, the same detector, at most as many steps, no unlabeled images.

The control is a run of its own in `RUN/control`. Further draws, each with a control of its own, lie in
`RUN/draws/2`, `RUN/draws/3` ...; the recipe's own draw is the run itself. What is finished is found by its files.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ssodkit.bench.resample import difference_interval
from ssodkit.bench.statistics import paired_difference
from ssodkit.bench.verdict import print_verdict
from ssodkit.data.files import write_whole
from ssodkit.data.sets import open_data
from ssodkit.engine import train
from ssodkit.engine.bars import showing
from ssodkit.engine.checkpoint import CHOICE, RECIPE, read_own_run, read_recipe
from ssodkit.engine.distributed import Processes, open_processes
from ssodkit.engine.evaluate import find_all, test_views
from ssodkit.engine.metrics import DetectionTable
from ssodkit.engine.networks import open_network
from ssodkit.engine.results import RESULT
from ssodkit.errors import RecipeError
from ssodkit.methods.supervised import SupervisedConfig
from ssodkit.recipe.model import Recipe

COMPARISON = "comparison.json"
CONTROL, DRAWS = "control", "draws"
SUPERVISED = "supervised"
"""The one control that there is: labels alone."""


@dataclass(frozen=True)
class Pair:
    """A run and its control."""

    run: Path
    recipe: Recipe
    control: Recipe

    def trainings(self) -> Iterator[tuple[Path, Recipe]]:
        """Both, in the order in which they are trained."""
        yield self.run, self.recipe
        yield self.run / CONTROL, self.control


def compare(recipe: Recipe, out: Path | None, draws: int = 1, device: str | None = None) -> dict[str, Any]:
    """Train a recipe and its control, on so many draws, into the new or empty folder `out`, and say what came out.

    A draw has a fold and a seed of its own, the first of them the recipe's. Raises what `train` raises, and
    RecipeError for a recipe that has no control.
    """
    control_of(recipe)
    plan = _as_text({"control": SUPERVISED, "draws": draws})
    with open_processes(device) as processes:
        run = train.train(recipe, out, device, files={COMPARISON: plan}).run
        return _go_on(run, recipe, draws, device, processes)


def resume(run: Path, device: str | None = None, trust_plugins: bool = False) -> dict[str, Any]:
    """Go on with a comparison: finished trainings stay, one that was stopped goes on, the others are made."""
    planned = json.loads((run / COMPARISON).read_text(encoding="utf-8"))
    recipe = read_recipe(run, trust_plugins)
    with open_processes(device) as processes:
        return _go_on(run, recipe, planned["draws"], device, processes)


def is_comparison(run: Path) -> bool:
    """Whether the run in this folder is to be compared with a control."""
    return (run / COMPARISON).is_file()


def control_of(recipe: Recipe) -> Recipe:
    """The recipe with the same labeled images, views, detector, teacher's average and steps, and none unlabeled.

    Raises RecipeError for a recipe that learns from labels alone itself.
    """
    if recipe.data.batch.unlabeled == 0:
        raise RecipeError(
            f"{recipe.name} learns from labels alone: it is its own control. Compare a recipe whose "
            "data.batch.unlabeled is above 0."
        )
    images, engine = recipe.data.batch, recipe.engine
    batch = images.model_copy(update={"unlabeled": 0, "composition": "fixed", "group": 0})
    if engine.lr_for_images is not None:  # the rate that the labeled images of a step had beside the others
        share = images.labeled / images.slots
        engine = engine.model_copy(update={"lr_for_images": max(1, round(engine.lr_for_images * share))})
    method = SupervisedConfig(teacher=recipe.method.average)
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}_{SUPERVISED}",
            "data": recipe.data.model_copy(update={"batch": batch}),
            "method": method,
            "engine": engine,
        }
    )


def pairs_of(run: Path, recipe: Recipe, draws: int) -> list[Pair]:
    """The draws of a comparison: the recipe's own fold and seed first, then the next of both."""
    pairs = []
    for number in range(1, draws + 1):
        data = recipe.data.model_copy(update={"fold": recipe.data.fold + number - 1})
        drawn = recipe.model_copy(update={"data": data, "seed": recipe.seed + number - 1})
        pairs.append(Pair(run if number == 1 else run / DRAWS / str(number), drawn, control_of(drawn)))
    return pairs


def _go_on(run: Path, recipe: Recipe, draws: int, device: str | None, processes: Processes) -> dict[str, Any]:
    pairs = pairs_of(run, recipe, draws)
    trainings = [each for pair in pairs for each in pair.trainings()]
    for number, (folder, trained) in enumerate(trainings, start=1):
        _train(folder, trained, device, processes, f"training {number} of {len(trainings)}")
    found = [_look(folder, processes) for folder, _ in pairs[0].trainings()] if draws == 1 else []
    if not processes.is_first:
        return {}
    comparison = {"control": SUPERVISED, "draws": draws, **_compared(pairs, found)}
    write_whole(run / CHOICE, _as_text(comparison["chosen"]))
    write_whole(run / COMPARISON, _as_text(comparison))
    print_verdict(comparison)
    return comparison


def _train(folder: Path, recipe: Recipe, device: str | None, processes: Processes, which: str) -> None:
    """Train, or go on, unless it is finished; the same on all processes, whatever the others find on the disk."""
    is_finished, is_begun = processes.gather([(folder / RESULT).is_file(), (folder / RECIPE).is_file()])[0]
    if is_finished:
        return
    if processes.is_first:
        print(f"{which}: {recipe.name}, fold {recipe.data.fold}, seed {recipe.seed}")
    if is_begun:
        train.resume(folder, device, trust_plugins=True)  # its plug-ins are those of the run around it
    else:
        train.train(recipe, folder, device)


def _look(run: Path, processes: Processes) -> DetectionTable:
    """What the network that is a run's result finds in its test images, above the recipe's first threshold."""
    recipe, checkpoint = read_own_run(run, trust_plugins=True)
    name, network = open_network(recipe, checkpoint, None, processes.device)
    images = open_data(recipe.data.model_copy(update={"unlabeled": None})).test
    with showing(f"looking again, for the comparison: {name} of {recipe.name}") as on_progress:
        first = recipe.evaluation.thresholds[:1]
        return find_all({name: network}, images, test_views(recipe), first, recipe, processes, on_progress)[name][0]


def _compared(pairs: list[Pair], found: list[DetectionTable]) -> dict[str, Any]:
    """What `comparison.json` says beside the plan: scores, differences, and which network is the best."""
    results = [[_result(folder) for folder, _ in pair.trainings()] for pair in pairs]
    averages = [[_average(result) for result in pair] for pair in results]
    ours, controls = zip(*averages, strict=True)
    difference = paired_difference(ours, controls)
    assert difference is not None
    truth = open_data(pairs[0].recipe.data.model_copy(update={"unlabeled": None})).test
    interval = difference.interval
    if found:
        interval = difference_interval(found[0], found[1], truth)
    return {
        "test_images": len(truth),
        "pairs": [
            {
                "fold": pair.recipe.data.fold,
                "seed": pair.recipe.seed,
                "AP": one,
                "control_AP": other,
            }
            for pair, one, other in zip(pairs, ours, controls, strict=True)
        ],
        "redrawn": len({pair[0]["fold"]["hash"] for pair in results}) > 1,
        "difference": difference.mean,
        "interval": None if interval is None else list(interval),
        "interval_over": "test images" if found else "draws",
        "per_class": _per_class(results),
        "chosen": choose(results[0], pairs[0].recipe.evaluation.stands),
    }


def _result(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    return result


def _average(result: dict[str, Any]) -> float:
    return result[result["result"]]["AP"] or 0.0


def _per_class(results: list[list[dict[str, Any]]]) -> dict[str, dict[str, float | None]]:
    """Class -> its mean AP over the draws in the runs, and in their controls; None where a draw has no box of it."""
    table = {}
    for name in results[0][0]["per_class"][results[0][0]["result"]]:
        pairs = ([result["per_class"][result["result"]][name]["AP"] for result in pair] for pair in results)
        means = [None if None in side else sum(side) / len(side) for side in zip(*pairs, strict=True)]
        table[name] = dict(zip(("AP", "control_AP"), means, strict=True))
    return table


def choose(pair: Sequence[dict[str, Any]], stands: Literal["best", "run", "control"] = "best") -> dict[str, Any]:
    """Of student and teacher of a run and of its control, the one with the best AP on held-out labels.

    `pair` holds both results. The run's own stand first where scores are equal. Where the recipe says that the run or
    the control `stands`, it is the network that is its result.
    """
    if stands != "best":
        folder, result = (".", pair[0]) if stands == "run" else (CONTROL, pair[1])
        network = result["result"]
        return {"run": folder, "network": network, "AP": result[network]["AP"] or 0.0, "by": "recipe"}
    by = "validation" if all(result.get("validation") for result in pair) else "test"
    scores = {
        (folder, name): result["validation"][name] if by == "validation" else result[name]["AP"] or 0.0
        for folder, result in zip((".", CONTROL), pair, strict=True)
        for name in next(iter(result["thresholds"].values()))
    }
    folder, name = max(scores, key=lambda each: scores[each])
    return {"run": folder, "network": name, "AP": scores[folder, name], "by": by}


def _as_text(comparison: dict[str, Any]) -> str:
    return json.dumps(comparison, indent=2) + "\n"
