"""Suites: which recipes are compared, on which shares of labels, folds and seeds. One training is a cell.

name: mine
about: Two methods on the embedded data.
percents: [2.5]  # or, so many images of each class, shots: [5, 10]
folds: [1, 2]
methods:
  - {recipe: supervised}
  - {recipe: soft_teacher, baseline: supervised}
"""

import importlib.resources
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ssodkit.bench.published import Detector, Metric, Setting, shipped_benchmarks
from ssodkit.bench.published import Method as PublishedMethod
from ssodkit.data.shares import Share
from ssodkit.errors import RecipeError
from ssodkit.plugins import Config, suggest
from ssodkit.recipe.check import first_stage, load_recipe
from ssodkit.recipe.model import NAME, Recipe
from ssodkit.recipe.read import Mistake, Place, Written, read_yaml_file, refuse
from ssodkit.recipe.show import Redrawn, leaves
from ssodkit.recipe.validate import dotted, locate, validate_config

CHOICES = ("method", "percent", "shots", "fold", "seed")
"""What tells the cells of a suite apart."""


class PublishedRow(Config):
    """The rows of published.yaml that stand beside a method of a suite."""

    method: PublishedMethod
    detector: Detector
    variant: str | None = None
    """The row of an ablation; None for the main row."""
    source: str | None = Field(None, min_length=1)
    """Part of the entry's source or note, where several numbers are published, such as arXiv:2106.09018."""


class PublishedColumns(Config):
    """Which published numbers stand beside the columns of a suite."""

    setting: Setting
    metric: Metric = "AP"
    percent: float | Literal["same"] | None = "same"
    """`same`: that of the column. A number where the suite's data are others than the paper's: the head of the column
    says so. None in settings without a share."""


class MethodRow(Config):
    """One method of a suite: a recipe and what is changed in it."""

    recipe: str
    """The name of a shipped recipe, or a path relative to the suite."""
    name: str = Field("", pattern=NAME + "|^$")
    """By which the suite speaks of it; by default the recipe's file name."""
    title: str = ""
    """In tables; by default the name."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of the recipe and their values, as for `--set`; they come after those of the suite."""
    baseline: str | None = None
    """The name of the row that this one's gain is over: the supervised training of the same detector."""
    published: PublishedRow | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_names(cls, written: Any) -> Any:
        if isinstance(written, dict) and isinstance(written.get("recipe"), str):
            name = written.get("name") or Path(written["recipe"]).stem
            return {"title": name, **written, "name": name}
        return written


class Suite(Config):
    """Methods x shares of labels x folds x seeds, and how they are shown."""

    name: str = Field(pattern=NAME)
    about: str
    """One sentence, which stands above the table."""
    warning: str | None = None
    """A sentence that nobody who reads the table shall miss."""
    percents: tuple[Annotated[float, Field(gt=0.0, le=100.0)], ...] | None = Field(None, min_length=1)
    """`data.percent`, a column each; None: the recipes' own, one column."""
    shots: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """`data.shots`, a column each; where there are percents as well, they come first."""
    headings: tuple[str, ...] = ()
    """What stands above the columns of the percentages, where that says more: how many images each is."""
    folds: tuple[Annotated[int, Field(ge=1, lt=2**32)], ...] | None = Field(None, min_length=1)
    """`data.fold`; None: the recipes' own."""
    seeds: Literal["per_fold"] | tuple[Annotated[int, Field(ge=0)], ...] = "per_fold"
    """`per_fold`: fold k is trained with seed k - 1, so that folds differ in all that is random. A list: every fold
    with each of them, and a fold's number is their mean."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted keys of all recipes and their values, as for `--set`."""
    methods: tuple[MethodRow, ...] = Field(min_length=1)
    published: PublishedColumns | None = None

    @field_validator("methods")
    @classmethod
    def _names_differ_and_baselines_exist(cls, methods: tuple[MethodRow, ...]) -> tuple[MethodRow, ...]:
        names = [row.name for row in methods]
        for row in methods:
            if names.count(row.name) > 1:
                raise ValueError(f"two rows are called '{row.name}'; give one of them another `name`")
            if row.baseline is not None and row.baseline not in names:
                raise ValueError(f"the baseline of '{row.name}' is no row; {suggest(row.baseline, names)}")
            if row.baseline == row.name:
                raise ValueError(f"'{row.name}' is its own baseline; name another row, or leave `baseline` out")
        return methods

    @model_validator(mode="after")
    def _headings_are_of_columns(self) -> "Suite":
        columns = len(self.percents or ())
        if self.headings and len(self.headings) != columns:
            raise ValueError(f"`headings` holds {len(self.headings)}, but there are {columns} percents")
        return self

    @field_validator("percents", "shots", "folds", "seeds")
    @classmethod
    def _none_stands_twice(cls, values: tuple[float | int, ...] | str | None) -> tuple[float | int, ...] | str | None:
        listed = values if isinstance(values, tuple) else ()
        for value in listed:
            if listed.count(value) > 1:
                raise ValueError(f"{value:g} stands twice; leave one of them out")
        return values

    @property
    def shares(self) -> tuple[Share | None, ...]:
        """How many labels, a column each; None: as many as the recipes say."""
        percents = [Share(percent) for percent in self.percents or ()]
        return (*percents, *(Share(shots=shots) for shots in self.shots or ())) or (None,)

    def heading(self, share: Share) -> str:
        """What stands above the scores of this share of labels."""
        if self.headings and share.shots is None and self.percents and share.percent in self.percents:
            return self.headings[self.percents.index(share.percent)]
        return share.heading

    @property
    def draws(self) -> dict[str, str]:
        """Keys of recipes that the suite itself sets -> its own key that says so."""
        own = "percents" if self.percents else "shots"
        keys = {"data.percent": own, "data.shots": own} if self.percents or self.shots else {}
        if self.folds:
            keys["data.fold"] = "folds"
        if self.seeds != "per_fold" or self.folds:
            keys["seed"] = "seeds" if self.seeds != "per_fold" else "folds"
        return keys


@dataclass(frozen=True)
class Cell:
    """One training of a suite."""

    method: str
    """The name of its row."""
    share: Share
    fold: int
    seed: int
    recipe: Recipe
    hash: str
    """Of the recipe and its first stage's: cells of other suites with the same hash are the same training."""
    steps: int
    """Of both stages, where there are two."""

    @property
    def name(self) -> str:
        """Of its result file and of its folder, the same in every suite."""
        recipe = self.recipe.name
        return f"{recipe}-{self.share.slug}-fold{self.fold}-seed{self.seed}-{self.hash}"


def find_suite(name: Path | str) -> Path:
    """The file that `name` means. Raises RecipeError that names the nearest shipped suite."""
    shipped = shipped_benchmarks()
    for path in (Path(name), shipped / name, shipped / f"{name}.yaml"):
        if path.is_file():
            return path
    names = [path.relative_to(shipped).with_suffix("").as_posix() for path in shipped.rglob("*.yaml")]
    hint = suggest(str(name).removesuffix(".yaml"), [name for name in names if name != "published"])
    raise RecipeError(f"there is no suite '{name}': no such file, and none of this name is shipped; {hint}")


def results_folder(path: Path | str, named: Path | None = None) -> Path:
    """Where the result files of a suite are read: the folder that somebody `named`, else the suite's own, which need
    not exist. That is beside it, or below here if it came with the package.

    Raises RecipeError where the named one is no folder.
    """
    if named is not None:
        if not named.is_dir():
            raise RecipeError(f"--results {named} is no folder; leave it out for {results_folder(path)}")
        return named
    path = find_suite(path)
    package = Path(str(importlib.resources.files("ssodkit")))
    return Path("benchmarks/results") if path.resolve().is_relative_to(package) else path.parent / "results"


def cells_of(path: Path | str, trust_plugins: bool = False) -> tuple[Suite, tuple[Cell, ...]]:
    """A suite and all of its cells: fold by fold, in each every method, so that early results can be compared.

    Raises RecipeError for a mistake in the suite, and for a row whose recipe has one, or names plug-ins that were never
    run here, unless `trust_plugins`.
    """
    path = find_suite(path)
    suite, tree = _load(path)
    _refuse_overwritten(suite, tree)
    rows: list[tuple[Redrawn, int]] = []
    for index, row in enumerate(suite.methods):
        try:
            recipe = _load_row(path.parent, suite, row, trust_plugins)
            first = first_stage(recipe)
            steps = recipe.engine.steps + (first.engine.steps if first else 0)
            rows.append((Redrawn(recipe, first), steps))
        except RecipeError as error:
            place = locate(tree, ("methods", index, "recipe"))[1].place
            raise RecipeError(f"{place} methods.{index} ({row.name}): {error}") from error
    cells = [
        _make_cell(row.name, recipe, steps, share, fold, seed)
        for share in suite.shares
        for fold in suite.folds or (None,)
        for row, (recipe, steps) in zip(suite.methods, rows, strict=True)
        for seed in _seeds(suite, fold)
    ]
    _refuse_equal(cells, tree)
    return suite, tuple(cells)


def choose(cells: Iterable[Cell], only: Iterable[str]) -> tuple[Cell, ...]:
    """The cells that a user means by `--only`, such as `method=soft_teacher,percent=5`.

    Of a key that is said several times, any of its values will do; all keys must fit. Raises RecipeError for a key or
    a value that no cell has.
    """
    chosen = tuple(cells)
    wanted: dict[str, list[str]] = {}
    for part in [part.strip() for text in only for part in text.split(",")]:
        key, _, value = part.partition("=")
        if key not in CHOICES:
            raise RecipeError(f"--only {part}: a choice is key=value, its key one of: {', '.join(CHOICES)}")
        there = list(dict.fromkeys(written for cell in chosen if (written := _written(cell, key)) is not None))
        if value not in there:
            which = f"{key} is one of: {', '.join(there)}" if there else "the suite says otherwise how many are labeled"
            raise RecipeError(f"--only {part}: no cell has this {key}; {which}")
        wanted.setdefault(key, []).append(value)
    chosen = tuple(cell for cell in chosen if all(_written(cell, key) in wanted[key] for key in wanted))
    if not chosen:
        raise RecipeError(f"--only {','.join(only)}: cells have each of these, but no cell has all of them")
    return chosen


def _written(cell: Cell, key: str) -> str | None:
    """As `--only` takes it; None for a percentage of a cell that has shots, and the other way round."""
    shots = cell.share.shots
    match key:
        case "percent":
            return f"{cell.share.percent:g}" if shots is None else None
        case "shots":
            return None if shots is None else str(shots)
    return str(getattr(cell, key))


def _load(path: Path) -> tuple[Suite, Written]:
    mistakes: list[Mistake] = []
    written = read_yaml_file(path, mistakes)
    if not mistakes and (written is None or not isinstance(written.value, dict)):
        place = written.place if written else Place(str(path), 1, 1)
        mistakes.append(Mistake(place, "", "a suite is a mapping of keys, such as `name: mine`"))
    refuse(mistakes)
    assert written is not None
    return validate_config(Suite, written), written


def _seeds(suite: Suite, fold: int | None) -> Iterator[int | None]:
    if suite.seeds != "per_fold":
        yield from suite.seeds
    else:
        yield None if fold is None else fold - 1


def _load_row(folder: Path, suite: Suite, row: MethodRow, trust_plugins: bool) -> Recipe:
    """A row's recipe, on the first of the suite's shares, folds and seeds."""
    name = folder / row.recipe if (folder / row.recipe).is_file() else row.recipe
    share, fold = suite.shares[0], (suite.folds or (None,))[0]
    drawn = {"data.fold": fold, "seed": next(_seeds(suite, fold))}
    known: list[tuple[str, Any]] = [(key, value) for key, value in drawn.items() if value is not None]
    known += [] if share is None else [("data.percent", share.percent), ("data.shots", share.shots)]
    values = [*suite.set.items(), *row.set.items(), *known]
    return load_recipe(name, [f"{key}={json.dumps(value)}" for key, value in values], trust_plugins)


def _make_cell(method: str, row: Redrawn, steps: int, share: Share | None, fold: int | None, seed: int | None) -> Cell:
    share = row.recipe.data.share if share is None else share
    fold = row.recipe.data.fold if fold is None else fold
    seed = row.recipe.seed if seed is None else seed
    return Cell(method, share, fold, seed, *row.at(share, fold, seed), steps)


def _refuse_overwritten(suite: Suite, tree: Written) -> None:
    """Raise RecipeError where `set` says what the suite's shares, folds and seeds say otherwise."""
    locations = [("set",), *(("methods", index, "set") for index in range(len(suite.methods)))]
    mistakes = []
    for location in locations:
        found, node = locate(tree, location)
        for path, item in leaves(node, ()) if found == location else ():
            if dotted(path) in suite.draws:
                text = f"the suite's own `{suite.draws[dotted(path)]}` sets this; leave one of them out"
                mistakes.append(Mistake(item.place, dotted((*location, *path)), text))
    refuse(mistakes)


def _refuse_equal(cells: list[Cell], tree: Written) -> None:
    first: dict[str, Cell] = {}
    for cell in cells:
        twin = first.setdefault(cell.hash, cell)
        if twin.method != cell.method:
            place = locate(tree, ("methods",))[1].place
            raise RecipeError(
                f"{place} methods: the rows '{twin.method}' and '{cell.method}' are the same training; "
                "set something else in one of them, or leave it out"
            )
