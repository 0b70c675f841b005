"""CSD's published numbers, heads that see no difference in a mirror, and real detectors that do."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from lesson import answers_of
from tiny import make_semi_batch, make_view
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ssodkit.consistency.base import Scene
from ssodkit.consistency.flip import (
    FlipConfig,
    box_difference,
    class_difference,
    is_foreground,
    mirrored_cells,
)
from ssodkit.detectors.anchors import AnchorConfig, make_anchors
from ssodkit.detectors.base import Detector
from ssodkit.detectors.learning import predict_together
from ssodkit.detectors.rules import DetectionRule
from ssodkit.errors import RecipeError
from ssodkit.methods.supervised import SupervisedConfig
from ssodkit.ops.coding import BoxCoder, Coder, EdgeCoder
from ssodkit.recipe.check import load_recipe
from ssodkit.schedules.rise_and_fall import RiseAndFallConfig
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.predictions import Answered, Candidates, Detections, Features, Predictions, Stages
from ssodkit.structures.progress import Progress
from ssodkit.structures.run import Losses
from ssodkit.structures.teaching import Supervision, Targets
from ssodkit.structures.views import View

START = Progress(0, 10)
P = [[0.2, 0.7, 0.1], [0.8, 0.15, 0.05], [0.3, 0.3, 0.4]]  # background first
Q = [[0.25, 0.55, 0.2], [0.3, 0.6, 0.1], [0.6, 0.1, 0.3]]
OFFSETS = [[0.5, -0.2, 0.1, 0.3], [1.0, 1.0, 1.0, 1.0], [-0.4, 0.1, 0.0, 0.2]]
MIRRORED = [[-0.3, -0.1, 0.2, 0.1], [1.0, 1.0, 1.0, 1.0], [0.6, 0.1, 0.1, 0.0]]
RULE = DetectionRule()


def said(probs: list[list[float]], codes: list[list[float]]) -> Predictions:
    """One image, with background behind the classes, as heads here have it."""
    logits = torch.tensor([probs], dtype=torch.float64).log().roll(-1, dims=-1)
    boxes = torch.tensor([0.0, 0.0, 8.0, 8.0], dtype=torch.float64).expand(1, len(probs), 4)
    offsets = torch.tensor([codes], dtype=torch.float64)[:, :, None]
    return replace(answers_of(logits, "softmax", boxes, offsets), coder=BoxCoder())


FIRST, SECOND = said(P, OFFSETS), said(Q, MIRRORED)
BACK = replace(SECOND, box_codes=SECOND.coder.mirrored(SECOND.box_codes))
MASKS = {
    "first_view": is_foreground(FIRST, RULE, 0.05),
    "none": torch.ones(1, 3, dtype=torch.bool),
    "both": is_foreground(FIRST, RULE, 0.05) & is_foreground(SECOND, RULE, 0.05),
}


def mean(losses: Tensor, mask: Tensor) -> float:
    return float(losses[mask].mean())


def test_is_foreground__has_the_published_masks():
    assert MASKS["first_view"].tolist() == [[True, False, True]]
    assert is_foreground(SECOND, RULE, 0.05).tolist() == [[True, True, False]]
    assert MASKS["both"].tolist() == [[True, False, False]]


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [("js", (0.034814, 0.068371, 0.014398)), ("half_jeffreys", (0.143270, 0.286998, 0.058323))],
)
def test_class_difference__has_the_published_means(divergence, expected):
    losses = class_difference(FIRST, BACK, divergence)
    means = [mean(losses, MASKS[name]) for name in ("first_view", "none", "both")]
    assert means == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("divergence", "expected"),
    [("js", [-0.006650, 0.017168, -0.010517]), ("half_jeffreys", [-0.012500, 0.037500, -0.025000])],
)
def test_class_difference__has_the_published_gradient(divergence, expected):
    logits = FIRST.class_logits.clone().requires_grad_()
    losses = class_difference(replace(FIRST, class_logits=logits), BACK, divergence)
    losses[MASKS["first_view"]].mean().backward()
    gradient = logits.grad[0, 0].roll(1)
    torch.testing.assert_close(gradient, torch.tensor(expected).double(), rtol=0.0, atol=1e-6)


def test_box_difference__has_the_published_numbers():
    losses = box_difference(FIRST, BACK)
    torch.testing.assert_close(losses, torch.tensor([[0.025, 1.0, 0.0225]]).double())
    assert mean(losses, MASKS["first_view"]) == pytest.approx(0.023750, abs=1e-9)
    assert mean(losses, MASKS["none"]) == pytest.approx(0.349167, abs=1e-6)
    assert mean(box_difference(FIRST, SECOND), MASKS["first_view"]) == pytest.approx(0.218750, abs=1e-9)


def test_box_difference__of_classes_with_their_own_boxes():
    """Boxes of the class that the view shows, or of all, wherever the other view sees another class."""
    codes = torch.zeros(1, 3, 2, 4, dtype=torch.float64)
    codes[:, :, 0], codes[:, :, 1] = 1.0, 3.0
    first = replace(FIRST, box_codes=codes)
    other = replace(BACK, box_codes=torch.zeros_like(codes))
    assert first.class_logits[..., :2].argmax(dim=-1).tolist() == [[0, 0, 1]]
    assert box_difference(first, other).tolist() == [[1.0, 1.0, 9.0]]
    assert box_difference(first, other, all_regressions=True).tolist() == [[5.0, 5.0, 5.0]]


@pytest.mark.parametrize(("divergence", "whole"), [("js", 3.516779), ("half_jeffreys", 3.547852)])
def test_flip__adds_to_the_labeled_losses_as_published(divergence, whole):
    """L_c = 2, L_l = 1.5, at step 16,000 of SSD's schedule."""
    weight = RiseAndFallConfig(up=32000, down=100000).at(Progress(16000, 120000))
    mask = MASKS["first_view"]
    agreement = mean(class_difference(FIRST, BACK, divergence), mask) + mean(box_difference(FIRST, BACK), mask)
    assert agreement == pytest.approx({"js": 0.058564, "half_jeffreys": 0.167020}[divergence], abs=1e-6)
    assert 3.5 + weight * agreement == pytest.approx(whole, abs=1e-6)


def test_under_sigmoids__classes_are_distributions_of_two_and_the_score_says_what_is_there():
    logits = torch.tensor([[[0.2, -3.0], [-4.0, -5.0]]]).double()
    first, second = answers_of(logits), answers_of(logits.flip(-1))
    two = [torch.stack([logits[0, 0, k].sigmoid(), 1 - logits[0, 0, k].sigmoid()]).log() for k in (0, 1)]
    pairs = [answers_of(row[None, None], "softmax") for row in two]
    expected = class_difference(pairs[0], pairs[1], "js") + class_difference(pairs[1], pairs[0], "js")
    torch.testing.assert_close(class_difference(first, second, "js")[:, :1], expected)
    assert is_foreground(first, RULE, 0.05).tolist() == [[True, False]]
    surely = replace(first, extra={"objectness": torch.tensor([[-9.0, 9.0]]).double()})
    rule = DetectionRule(rank={"class": 1.0, "objectness": 1.0})
    assert is_foreground(surely, rule, 0.01).tolist() == [[False, True]]


def test_mirrored_cells__columns_change_places():
    """Of five columns the first and last, the second and fourth; two anchors keep their order."""
    candidates = Candidates(torch.zeros(1, 24, 4), torch.ones(1, 24, dtype=torch.bool), lengths=(20, 4))
    features = Features((torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 1, 2)), (8, 20), make_view("a", [1]))
    order = mirrored_cells(candidates, features)
    assert order[:20].tolist() == [8, 9, 6, 7, 4, 5, 2, 3, 0, 1, 18, 19, 16, 17, 14, 15, 12, 13, 10, 11]
    assert order[20:].tolist() == [22, 23, 20, 21]


class Blind(Detector):
    """A detector of averages, which says of an image's mirror the mirror of what it says of the image."""

    def __init__(self, anchors: AnchorConfig | None = None, coder: Coder | None = None) -> None:
        super().__init__()
        self.anchors, self.coder = anchors, coder or BoxCoder(0.1, 0.2)

    def extract(self, view: View) -> Features:
        inside = torch.arange(view.pixels.shape[-1]) < view.sizes[:, 1:]
        if view.margin is not None:
            inside &= torch.arange(view.pixels.shape[-1]) >= view.margin[:, None]
        images = (view.pixels.double() - 100.0) * inside[:, None, None]
        return Features((avg_pool2d(images, 8), avg_pool2d(images, 16)), (8, 16), view.without_pixels())

    def detect(self, stages: Stages, score: float | None = None) -> Detections:
        raise NotImplementedError

    def predict(self, features: Features, supervision=None, proposals="test") -> Stages:
        anchors = make_anchors(self.anchors, features)
        logits, codes = [], []
        for level, stride in zip(features.maps, features.strides, strict=True):
            means = level.mean(dim=1) / 100.0
            across = (means.roll(-1, dims=-1) - means.roll(1, dims=-1)) * 8.0  # pixels, odd in a mirror
            # What is said is where a box of 10 x 12 lies: around the middle of the cell, not around its anchor.
            middle = torch.stack([across + stride / 2, means], dim=-1)
            half = torch.stack([5.0 + means, 6.0 - means], dim=-1)
            corner = torch.stack(
                torch.meshgrid(*(torch.arange(n) * stride for n in level.shape[:0:-1][:2]), indexing="xy"), -1
            )
            boxes = torch.cat([corner + middle - half, corner + middle + half], dim=-1)
            logits.append(torch.stack([means, -means], dim=-1).flatten(1, 2))
            codes.append(boxes.flatten(1, 2))
        boxes = torch.cat(codes, dim=1)
        said = self.coder.encode(anchors.boxes.to(boxes.dtype), boxes)[:, :, None]
        return Stages(
            {"dense": Predictions(anchors, torch.cat(logits, dim=1), "sigmoid", said, self.coder)}, features.view
        )

    def score_regions(self, features: Features, regions: Candidates) -> Predictions:
        """What is said of a region is said of the cell of its middle, shifts by how far that is off the cell's."""
        means = features.maps[0].mean(dim=1) / 100.0
        middle = (regions.boxes[..., :2] + regions.boxes[..., 2:]).double() / 2.0
        column, row = (middle[..., 0] // 8).long(), (middle[..., 1] // 8).long()
        own = means[
            torch.arange(len(means))[:, None], row.clamp(max=means.shape[1] - 1), column.clamp(max=means.shape[2] - 1)
        ]
        off = middle[..., 0] / 8.0 - column - 0.5
        codes = torch.stack([own * off, own, -own, own * 2], dim=-1)[:, :, None].expand(-1, -1, 2, -1)
        return Predictions(regions, torch.stack([own, 0.5 * own, -own], dim=-1), "softmax", codes, BoxCoder())


def scene_of(student, stages: Stages, view: View) -> Scene:
    answered = Answered(view, student.extract(view), stages, None)
    return Scene(student, SemiBatch(Stream({}, {}), None), START, answered)


def padded_view() -> View:
    """The second image is 40 of 64 pixels wide."""
    view = replace(make_view("a", [1, 2]), sizes=torch.tensor([[64, 64], [64, 40]]))
    view.pixels[1, :, :, 40:] = 0
    return view


def flip(tiny_context, detector: str, **fields):
    return FlipConfig(**fields).build(tiny_context(type=detector))


def values(losses: Losses) -> dict[str, Tensor]:
    return losses.values(losses.denominators())


@pytest.mark.parametrize("center", [0.5, 0.0, 0.25])
@pytest.mark.parametrize("coder", [BoxCoder(0.1, 0.2), EdgeCoder()], ids=lambda coder: type(coder).__name__)
def test_flip__a_head_that_sees_no_difference_in_a_mirror_loses_nothing(tiny_context, center, coder):
    """Of a padded batch as well, wherever anchors lie in their cells."""
    anchors = AnchorConfig(sides=((12.0,), (20.0,)), ratios=(1.0,), center=center, inside="canvas")
    student, view = Blind(anchors, coder), padded_view()
    view.pixels[:, :, :, :8] = view.pixels[:, :, :, -8:] = 100  # the head looks around the canvas's edge
    losses = flip(tiny_context, "retinanet", foreground="none")(
        scene_of(student, student.predict(student.extract(view)), view)
    )
    assert losses.terms["class"].denominator == 2 * (64 + 16)
    assert values(losses)["class"].item() == pytest.approx(0.0, abs=1e-9)
    assert values(losses)["box"].item() == pytest.approx(0.0, abs=1e-9)


def test_flip__regions_are_looked_up_in_the_mirror(tiny_context):
    student, view = Blind(), padded_view()
    boxes = torch.tensor([[4.0, 8.0, 19.0, 30.0], [20.0, 1.0, 39.0, 60.0], [0.0, 0.0, 0.0, 0.0]]).expand(2, 3, 4)
    regions = Candidates(boxes, torch.tensor([[True, True, False]] * 2))
    drawn = student.score_regions(student.extract(view), Candidates(boxes[:, :1], regions.valid[:, :1]))
    losses = flip(tiny_context, "faster_rcnn", foreground="none")(
        scene_of(student, Stages({"roi": drawn}, view, regions), view)
    )
    assert losses.terms["class"].denominator == 4  # all valid proposals, not the one that was drawn
    assert values(losses)["class"].item() == pytest.approx(0.0, abs=1e-9)
    assert values(losses)["box"].item() == pytest.approx(0.0, abs=1e-9)


DETECTORS = ("faster_rcnn", "retinanet", "fcos", "dense_objectness")


def csd(tiny_context, detector: str, head: dict | None = None, **fields):
    context = tiny_context(type=detector, **({} if head is None else {"head": head}))
    fields = {"above": 0.0, **fields}
    return SupervisedConfig.model_validate({"type": "supervised", "consistencies": [{"type": "flip", **fields}]}).build(
        context
    )


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("divergence", ["js", "half_jeffreys"])
def test_flip__teaches_every_detector_by_one_further_forward(tiny_context, detector, divergence):
    method, batch = csd(tiny_context, detector, divergence=divergence, foreground="none"), make_semi_batch()
    seen: list[Tensor] = []
    method.student.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    losses = method.step(batch, START).losses
    assert len(seen) == 2
    assert torch.equal(seen[1], seen[0].flip(-1))
    both = values(losses)
    assert both["consistency/flip/class"] > 0.0
    assert both["consistency/flip/box"] > 0.0
    (both["consistency/flip/class"] + both["consistency/flip/box"]).backward()
    taught = [weight.grad is not None for name, weight in method.student.named_parameters() if "backbone" in name]
    assert all(taught)
    assert all(one.grad is None or one.grad.isfinite().all() for one in method.student.parameters())


def test_flip__gradients_reach_both_passes(tiny_context):
    """Under half of Jeffreys' divergence, too, of which one side of each part is detached."""
    method, batch = csd(tiny_context, "retinanet", foreground="none"), make_semi_batch()
    maps: list[Tensor] = []

    def keep(_, given, answer: Sequence[Tensor]) -> None:
        answer[0].retain_grad()
        maps.append(answer[0])

    method.student.neck.register_forward_hook(keep)
    losses = values(method.step(batch, START).losses)
    for term in ("class", "box"):
        losses[f"consistency/flip/{term}"].backward(retain_graph=True)
        assert all(one.grad.abs().sum() > 0.0 for one in maps)
        for one in maps:
            one.grad = None


@pytest.mark.parametrize("detector", DETECTORS)
def test_flip__nothing_in_sight_is_a_loss_of_nothing_with_gradients(tiny_context, detector):
    method, batch = csd(tiny_context, detector, above=1.0), make_semi_batch()
    if detector == "faster_rcnn":
        torch.nn.init.constant_(method.student.roi.classify.bias[-1:], 50.0)  # all is background
    empty = SemiBatch(Stream(batch.labeled.views, {"labeled": Targets.empty(2)}), batch.unlabeled)
    losses = method.step(empty, START).losses
    assert losses.terms["consistency/flip/class"].denominator == 0.0
    assert values(losses)["consistency/flip/class"] == values(losses)["consistency/flip/box"] == 0.0
    torch.stack(list(values(losses).values())).sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in method.student.parameters())


@pytest.mark.parametrize("detector", DETECTORS)
def test_flip__asks_the_host_no_more_than_the_detector_does(tiny_context, host_questions, detector):
    batch = make_semi_batch()
    plain = SupervisedConfig().build(tiny_context(type=detector))
    both = csd(tiny_context, detector)
    counts = []
    for method in (plain, both):
        method.step(batch, START)  # lays out the anchors
        with host_questions() as asked:
            method.step(batch, START)
        counts.append(sum(asked.values()))
    assert counts[1] - counts[0] <= (1 if detector == "faster_rcnn" else 0)


def test_flip__streams_on_other_canvases_are_asked_in_turn(tiny_context):
    """The losses are those of each stream alone, added before they are divided."""
    part = flip(tiny_context, "retinanet", foreground="none")
    student = tiny_context(type="retinanet").detector.build(tiny_context(type="retinanet"))
    nothing = Supervision.uniform(Targets.empty(2), START)
    views = [make_view("a", [1, 2], side=64), make_view("b", [3, 4], side=32)]
    one, other = (predict_together(student, [view], [nothing])[0] for view in views)
    scene = Scene(student, make_semi_batch(), START, one, other)
    both = part(scene)
    alone = [part(replace(scene, labeled=answered, unlabeled=None)) for answered in (one, other)]
    for name in ("class", "box"):
        terms = [losses.terms[name] for losses in alone]
        torch.testing.assert_close(both.terms[name].sum, terms[0].sum + terms[1].sum)
        assert both.terms[name].denominator == terms[0].denominator + terms[1].denominator


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            "coco/supervised_retinanet",
            "method.consistencies.0: 'flip' compares cells of up to 128 pixels with those of a mirrored canvas, whose "
            "sides, multiples of 32, need not be whole cells; write `views.pad_to: 128`",
        ),
        (
            "supervised_dino",
            "method.consistencies.0: 'flip' needs 'comparable_answers', which 'supervised' on 'dino' does not provide",
        ),
    ],
)
def test_recipe__what_a_mirror_cannot_be_compared_with_is_refused(recipe, said):
    unlabeled = ["method.consistencies=[{type: flip}]", "data.batch.unlabeled=2", "views.unlabeled={strong: []}"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, unlabeled)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    if "128" in said:
        assert load_recipe(recipe, [*unlabeled, "views.pad_to=128"]).views.pad_to == 128


def test_misfit__a_detector_that_says_nothing_of_its_cells_is_refused(monkeypatch):
    detector = load_recipe("supervised_retinanet").detector
    monkeypatch.setattr(type(detector), "largest_cell", None)
    assert FlipConfig().misfit(detector, 32) == (
        "'flip' compares cells, and the config of 'retinanet' does not say `largest_cell`"
    )
