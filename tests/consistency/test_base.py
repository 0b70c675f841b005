"""The slot, with a consistency from a file outside the package, in every method."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pages import forgetting
from tiny import make_semi_batch
from torch import Tensor

from ssodkit.engine.build import build_method
from ssodkit.errors import RecipeError
from ssodkit.methods.base import Method
from ssodkit.ops.boxes import has_area
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe
from ssodkit.structures.geometry import SemiBatch
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses

OUTSIDE = f"plugins=[{Path(__file__).with_name('plug_level.py')}]"
TINY = ("detector.backbone={type: small, stem: 8, channels: [8, 16]}", "detector.neck.channels=8", "engine.steps=10")
RECIPES = {
    "supervised": ("supervised", ("data.batch.unlabeled=2",)),
    "pseudo_label": (
        "mean_teacher",
        (
            "method.teacher.score=0.0",
            "detector.head.prior=0.2",
            "method.selector={type: fixed, above: 0.05, ignore_from: null}",
        ),
    ),
    "imitation": ("dense_teacher", ("detector.head.layers=1",)),
}
START = Progress(0, 10)


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """Other tests do not see the plug-in, and each imports it anew."""
    with forgetting("plug_level"):
        yield


def recipe_of(method: str, *overrides: str, consistencies: str = "[{type: outside_level, weight: 2.0}]") -> Recipe:
    name, own = RECIPES[method]
    return load_recipe(
        name, [OUTSIDE, *TINY, *own, f"method.consistencies={consistencies}", *overrides], trust_plugins=True
    )


def weighing(method: str) -> tuple[str, ...]:
    return () if method == "supervised" else ("method.unlabeled_weight=1.0",)


def build(method: str, *overrides: str) -> Method:
    return build_method(recipe_of(method, *weighing(method), *overrides), num_classes=10, load_weights=False)


def values(losses: Losses) -> dict[str, Tensor]:
    return losses.values(losses.denominators())


def semi_batch() -> SemiBatch:
    batch = make_semi_batch()
    assert batch.unlabeled is not None
    return batch


@pytest.mark.parametrize("name", RECIPES)
def test_consistency__sees_the_step_and_learns_in_every_method(name: str) -> None:
    method, batch = build(name), semi_batch()
    losses = method.step(batch, START).losses
    assert [term for term in losses if term.startswith("consistency")] == ["consistency/outside_level/level"]
    assert losses.terms["consistency/outside_level/level"].factor == 2.0
    part = method.get_submodule("consistencies.parts.outside_level")
    scene = part.scene
    assert scene.batch is batch
    assert scene.student is method.networks()["student"]
    assert (scene.teacher is None) == (name == "supervised")
    assert scene.labeled.supervision.classes.valid.sum() == 3
    strong = batch.unlabeled.views["strong"]
    assert torch.equal(scene.unlabeled.view.keys, strong.keys)
    assert torch.equal(scene.unlabeled.view.pixels, strong.pixels)
    assert [len(level) for level in scene.unlabeled.features.maps] == [2] * len(scene.unlabeled.features.maps)
    assert len(scene.unlabeled.stages.last.class_logits) == 2
    torch.stack(list(values(losses).values())).sum().backward()
    assert part.factor.grad != 0.0
    assert method.state_dict()["consistencies.parts.outside_level.updates"] == 0.0
    method.after_update(Progress(1, 10), torch.tensor(True))
    assert method.state_dict()["consistencies.parts.outside_level.updates"] == 1.0


@pytest.mark.parametrize("name", RECIPES)
def test_consistency__that_weighs_nothing_costs_nothing_and_stays_in_the_graph(name: str) -> None:
    method = build(name, "method.consistencies.0.weight=0.0")
    losses = method.step(semi_batch(), START).losses
    assert not [term for term in losses if term.startswith("consistency")]
    part = method.get_submodule("consistencies.parts.outside_level")
    assert part.scene is None
    torch.stack(list(values(losses).values())).sum().backward()
    assert part.factor.grad == 0.0


@pytest.mark.parametrize("name", ["pseudo_label", "imitation"])
def test_consistency__sees_labeled_images_alone_while_the_student_looks_at_no_others(name: str) -> None:
    method = build(name, "method.unlabeled_weight=0.0")
    losses = method.step(SemiBatch(semi_batch().labeled, None), START).losses
    part = method.get_submodule("consistencies.parts.outside_level")
    assert part.scene.unlabeled is None
    torch.stack(list(values(losses).values())).sum().backward()
    assert part.factor.grad == 0.0


def test_pseudo_label__shows_its_boxes_in_both_frames() -> None:
    method = build("pseudo_label")
    method.step(semi_batch(), START)
    scene = method.get_submodule("consistencies.parts.outside_level").scene
    weak, strong = scene.selected.classes, scene.unlabeled.supervision.classes
    assert strong.valid.any()
    seen = strong.valid & has_area(weak.boxes)
    mirrored = torch.stack([64.0 - weak.boxes[..., 2], 64.0 - weak.boxes[..., 0]], dim=-1)
    torch.testing.assert_close(strong.boxes[..., ::2][seen], mirrored[seen])  # the tiny strong view is a mirror
    assert torch.equal(scene.seen.features.view.keys, scene.batch.unlabeled.views["weak"].keys)
    assert scene.plan.keys() == scene.unlabeled.stages.by_name.keys()


def test_supervised__looks_at_unlabeled_images_without_stored_labels() -> None:
    method, batch = build("supervised"), semi_batch()
    forwards = []
    method.networks()["student"].backbone.register_forward_hook(lambda *_: forwards.append(1))
    losses = method.step(batch, START).losses
    assert {term.split("/")[0] for term in losses} == {"labeled", "consistency"}
    assert method.get_submodule("consistencies.parts.outside_level").scene.unlabeled.supervision is None
    assert len(forwards) == 1


def test_supervised__loads_unlabeled_images_where_a_consistency_weighs() -> None:
    ramp = "[{type: outside_level, weight: {type: step, before: 0.0, after: 1.0, at: 5}}]"
    method = recipe_of("supervised", consistencies=ramp).method
    assert [method.uses_unlabeled(Progress(step, 10)) for step in (4, 5)] == [False, True]
    assert not method.teaches_unlabeled(Progress(5, 10))
    assert method.needs_views == {"unlabeled": ("strong",)}


@pytest.mark.parametrize(
    ("overrides", "consistencies", "said"),
    [
        (
            (),
            "[{type: outside_level}, {type: outside_level}]",
            "method.consistencies.1.type: there is a 'outside_level' before it",
        ),
        (
            (),
            "[{type: outside_boxes}]",
            "method.consistencies.0: 'outside_boxes' needs 'pseudo_boxes', which 'supervised' on 'faster_rcnn' does "
            "not provide; provided by: method 'pseudo_label'",
        ),
        (("data.batch.unlabeled=0",), "[{type: outside_level}]", "give a step at least 1, not 0"),
    ],
)
def test_recipe__consistencies_that_do_not_fit_are_refused_by_one_sentence(overrides, consistencies, said) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of("supervised", *overrides, consistencies=consistencies)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_recipe__pseudo_boxes_come_from_the_method() -> None:
    recipe = recipe_of("pseudo_label", consistencies="[{type: outside_boxes}]")
    assert [one.type for one in recipe.method.consistencies] == ["outside_boxes"]
