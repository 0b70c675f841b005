"""Any value anywhere in a recipe: a sentence that names its place, or a step of training that is finite.

Fields are drawn from shipped recipes as they are resolved, with every default, and put into a file or a `--set`. What
recipes may say is not bounded to what a test has memory for: of what is accepted, only what is tiny takes its step.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import yaml
from attack import budget
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ssodkit.data.augment.base import draw_view
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.raw import RawBatch
from ssodkit.data.sampler import StepSampler
from ssodkit.data.splits import draw_places
from ssodkit.data.views import ViewConfig, ViewMaker
from ssodkit.engine.build import build_method
from ssodkit.engine.distributed import Processes
from ssodkit.engine.update import Updater
from ssodkit.errors import RecipeError
from ssodkit.ops.random import make_key
from ssodkit.plugins import load_plugins, members
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.fit import walk
from ssodkit.recipe.model import Recipe
from ssodkit.recipe.read import Mistake, read_recipe_file
from ssodkit.recipe.show import dump_recipe
from ssodkit.reliability.box_jitter import BoxJitterConfig
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress
from ssodkit.structures.teaching import Targets

SIDE, CLASSES = 48, 10
LINE = re.compile(r"(?:.+:\d+:\d+|--set .*:)(?: [\w./\\-]+: .+|: (?:this is not YAML|nested in more than).+)")
"""Where, which key, and what is wrong; what is no YAML has no keys."""

TINY = (
    "detector.backbone={type: small, stem: 8, channels: [8, 16], group: 8}",
    "detector.neck.channels=8",
    "engine.steps=8",
    "data.batch={labeled: 2, unlabeled: 2}",
)
REGIONS = (
    "detector.roi={cells: 3, width: 16}",
    "detector.proposals={training: {per_level: 30, keep: 16}, test: {per_level: 30, keep: 16}}",
)
TOWERS = ("detector.head={layers: 1, prior: 0.2}",)
SURE = "{score: confidence, above: 0.05}"
RECIPES = {
    "soft_teacher": (
        *REGIONS,
        f"method.selector={{objectness: {SURE}, classes: {SURE}, boxes: {{score: box_jitter, below: 10.0}}}}",
        "method.scorers.0.asks.above=0.05",
    ),
    "unbiased_teacher": (*REGIONS, "method.selector.above=0.05", "engine.optimizer={type: adamw}"),
    "stac": (*REGIONS, "data.unlabeled.made_by=null", "data.unlabeled.file=labels.json"),
    "mean_teacher": (*TOWERS, "method.selector.above=0.05", "method.selector.ignore_from=null"),
    "consistent_teacher": TOWERS,
    "supervised_retinanet": (*TOWERS, "detector.stages.dense.matcher={type: one_to_many}"),
}
"""Shipped recipes, and what makes them small and their new networks confident."""

NUMBERS = ["0", "1", "-1", "2", "0.5", "-0.5", "-0.0", "+7", "007", "10", "100", "1000", "65536"]
NUMBERS += ["1e-300", "1e-6", "1e-3", "1e5", "1e6", "1e9", "1e38", "1e300", "1e400", "-1e400", ".inf", "-.inf", ".nan"]
NUMBERS += ["4294967295", "4294967296", str(2**63 - 1), str(2**63), "1" + "0" * 400, "-" + "9" * 5000]
WORDS = ["true", "false", "null", "''", "never", "33 %", "0 %", "101 %", "text", "/", "../..", "*a", "!!int x"]
WORDS += ["'a\\nb'", '"a\\n"', '"\\ud800"', '"\\0"', "2026-11-20", "[]", "{}", "[0]", "[[]]", "[1, 2]", "[.nan, .inf]"]
WORDS += ["[{}, null]", "{a: {b: [1]}}", "[" * 101 + "]" * 101, "{type: x}", "{type: 5}", "{type: [a]}", "{type: null}"]

VALUES = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(WORDS),
    st.floats().map(lambda number: yaml.safe_dump([number], default_flow_style=True).strip()[1:-1]),
    st.integers().map(str),
    st.text(max_size=8).map(json.dumps),
)
"""Values as YAML, in one line."""


@dataclass(frozen=True)
class Base:
    """A recipe that works, and the places in it."""

    plain: dict[str, Any]
    paths: tuple[tuple[str | int, ...], ...]


@cache
def bases() -> dict[str, Base]:
    """Made once; no fixture, as Hypothesis shows those in full with what it finds."""
    load_plugins()
    made = {}
    for name, changes in RECIPES.items():
        plain = yaml.safe_load(dump_recipe(load_recipe(name, (*TINY, *changes))))
        if name != "supervised_retinanet":
            plain["views"]["unlabeled"]["strong"]["transforms"] = [{"type": "resize", "short": SIDE}, *_transforms()]
        made[name] = Base(plain, tuple(_paths(plain)))
    return made


def _transforms() -> Iterator[dict[str, Any]]:
    """Every transform that needs no other in it, as it is by default."""
    for name, config in members("transform").items():
        if not any(field.is_required() for field in config.model_fields.values()) and name != "resize":
            yield yaml.safe_load(json.dumps(config().model_dump(mode="json")))


def _paths(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _paths(item, (*path, key))


@given(
    name=st.sampled_from(list(RECIPES)), place=st.floats(0.0, 1.0, exclude_max=True), value=VALUES, is_set=st.booleans()
)
@budget(250)
def test_recipes__any_value_is_refused_with_its_place_or_trains(
    tmp_path_factory, name: str, place: float, value: str, is_set: bool
):
    base = bases()[name]
    path = base.paths[int(place * len(base.paths))]
    file = tmp_path_factory.getbasetemp() / "attacked.yaml"
    file.write_text(_written(base.plain, () if is_set else path, value), encoding="utf-8")
    try:
        recipe = load_recipe(file, [f"{'.'.join(map(str, path))}={value}"] if is_set else [])
    except RecipeError as error:
        for line in str(error).splitlines():
            assert LINE.fullmatch(line), line
        return
    take_a_step(recipe)
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(file) == recipe


def _written(plain: dict[str, Any], path: tuple[str | int, ...], value: str) -> str:
    """A recipe as one line of YAML, this text in the place of what stands at the path, if there is one."""
    if not path:
        return json.dumps(plain).replace("Infinity", ".inf")
    changed = json.loads(json.dumps(plain))
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = "@"
    return json.dumps(changed).replace("Infinity", ".inf").replace('"@"', value)


def take_a_step(recipe: Recipe) -> None:
    """One update at half of the run, by noise; fails unless all of it is finite. What is not tiny is not tried."""
    plan = derive_batch(recipe.data.batch, lr_for_images=recipe.engine.lr_for_images)
    if recipe.data.batch.slots > 64 or not (views_are_tiny(recipe) and network_is_tiny(recipe)):
        return
    draw_places("stac", 100, recipe.data.percent, recipe.data.fold)
    StepSampler(recipe.seed, recipe.data.batch, *(raw(name).sizes.int().numpy() for name in ("a", "b"))).rows(0)
    method = build_method(recipe, CLASSES, load_weights=False)
    update = Updater(method, recipe.engine, Processes(torch.device("cpu")), recipe.seed, plan.lr_factor)
    streams = [
        make(recipe, views, name)
        for name, views in (("labeled", recipe.views.labeled), ("unlabeled", recipe.views.unlabeled))
    ]
    numbers = update((SemiBatch(*streams),), Progress(recipe.engine.steps // 2, recipe.engine.steps)).read()
    assert not numbers.is_halted, numbers
    assert are_finite(method)
    student = method.networks()["student"]
    test = make(recipe, {"test": recipe.views.test}, "test").views["test"]
    with torch.no_grad():
        found = student.detect(student.predict(student.extract(test)), score=recipe.evaluation.thresholds[-1])
    assert found.boxes[found.valid].isfinite().all()


def raw(name: str) -> RawBatch:
    """Two images of noise, with a box each."""
    targets = Targets.empty(2, length=1)
    targets.boxes[:] = torch.tensor([12.0, 10.0, 34.0, 38.0])
    targets.valid[:], targets.weight[:] = True, 1.0
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    keys = torch.tensor([make_key(name, 0), make_key(name, 1)])
    return RawBatch(pixels, torch.full((2, 2), SIDE), torch.arange(2), keys, targets)


def make(recipe: Recipe, views: dict[str, ViewConfig], name: str):
    return ViewMaker(views, recipe.views.minimum_visible, recipe.views.pad_to).make(raw(name))


def views_are_tiny(recipe: Recipe) -> bool:
    """Whether all views fit onto small canvases."""
    images = raw("sizes")
    every = [*recipe.views.labeled.values(), *recipe.views.unlabeled.values(), recipe.views.test]
    sizes = [draw_view(view.transforms, images.sizes, images.keys, images.targets).sizes.max() for view in every]
    return max(*(int(size) for size in sizes), recipe.views.pad_to) <= 2 * SIDE


def network_is_tiny(recipe: Recipe) -> bool:
    """Whether the networks have few parameters, and few regions are asked about."""
    if any(isinstance(config, BoxJitterConfig) and config.draws > 20 for _, config in walk(recipe)):
        return False
    with torch.device("meta"):
        return elements(build_method(recipe, CLASSES, load_weights=False)) < 300_000


def elements(module: nn.Module) -> int:
    return sum(tensor.numel() for tensor in tensors(module))


def are_finite(module: nn.Module) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in tensors(module))


def tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


DOCUMENTS = st.one_of(
    st.binary(),
    st.text().map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text("[]{}:,-&*!|>'\"#%@`? \n\tab01.~\\xuU", max_size=200).map(str.encode),
)


@given(content=DOCUMENTS)
@budget(300)
def test_read_recipe_file__any_content_is_read_or_has_mistakes_with_their_places(tmp_path_factory, content: bytes):
    file = tmp_path_factory.getbasetemp() / "document.yaml"
    file.write_bytes(content)
    mistakes: list[Mistake] = []
    written = read_recipe_file(file, mistakes)
    for mistake in mistakes:
        assert re.fullmatch(rf"{file}:\d+:\d+.*: .+", str(mistake))
    json.dumps(written.plain).encode()
