import pytest
import torch

from ssodkit.reliability.box_jitter import (
    BoxJitter,
    BoxJitterConfig,
    shake,
    spread_in_candidate_sides,
    spread_in_mean_sides,
)
from ssodkit.structures.predictions import Detections
from ssodkit.teachers.ema import EmaTeacherConfig

CANDIDATE = [100.0, 50.0, 200.0, 130.0]
STEADY = [[100, 50, 200, 130], [101, 50.5, 201, 131], [99, 49.5, 199.5, 129], [102, 51, 202, 132]]
LOOSE = [[100, 50, 200, 130], [104, 52, 205, 134], [96, 49, 196, 127], [106, 47, 207, 131]]
LONG_CANDIDATE = [0.0, 0.0, 200.0, 20.0]
LONG = [[0, 0, 200, 20], [2, 0.2, 202, 20.4], [-2, -0.2, 198, 19.8], [1, 0.4, 201, 20.2]]


def one_box(refined):
    return torch.tensor(refined, dtype=torch.float64)[None, :, None]  # batch draws boxes 4


def test_shake__moves_each_coordinate_by_its_own_draw():
    boxes, noise = torch.tensor([[CANDIDATE]]), torch.tensor([[[[1.0, -1.0, 0.5, 2.0]]]])
    torch.testing.assert_close(shake(boxes, noise, 0.06), torch.tensor([[[[106.0, 45.2, 203.0, 139.6]]]]))


def test_shake__a_box_thinner_than_a_pixel_is_shaken_as_one_of_a_pixel():
    boxes, noise = torch.tensor([[[5.0, 5.0, 5.0, 25.0]]]), torch.ones(1, 1, 1, 4)
    torch.testing.assert_close(shake(boxes, noise, 0.5), torch.tensor([[[[5.5, 15.0, 5.5, 35.0]]]]))


@pytest.mark.parametrize(
    ("refined", "spread"), [(STEADY, 0.012024), (LOOSE, 0.038721), (LONG, 0.010725)], ids=["A", "B", "C"]
)
def test_spread_in_mean_sides__is_the_codes(refined, spread):
    assert spread_in_mean_sides(one_box(refined)).item() == pytest.approx(spread, abs=5e-7)


@pytest.mark.parametrize(
    ("candidate", "refined", "spread"),
    [(CANDIDATE, STEADY, 0.012045), (CANDIDATE, LOOSE, 0.039916), (LONG_CANDIDATE, LONG, 0.008936)],
    ids=["A", "B", "C"],
)
def test_spread_in_candidate_sides__is_the_papers(candidate, refined, spread):
    boxes = torch.tensor([[candidate]], dtype=torch.float64)
    assert spread_in_candidate_sides(one_box(refined), boxes).item() == pytest.approx(spread, abs=5e-7)


def only(refined, coordinate):
    """The same answers where one coordinate varies, the others at their mean."""
    answers = one_box(refined)
    alone = answers.mean(dim=1, keepdim=True).expand_as(answers).clone()
    alone[..., coordinate] = answers[..., coordinate]
    return alone


@pytest.mark.parametrize(
    ("refined", "deviations"),
    [(STEADY, [1.290994, 0.645497, 1.108678, 1.290994]), (LOOSE, [4.434712, 2.081666, 4.966555, 2.886751])],
    ids=["A", "B"],
)
def test_spread_in_candidate_sides__is_the_mean_of_each_coordinates_deviation(refined, deviations):
    boxes, mean_side = torch.tensor([[CANDIDATE]], dtype=torch.float64), (100.0 + 80.0) / 2
    spreads = [4 * mean_side * spread_in_candidate_sides(only(refined, k), boxes).item() for k in range(4)]
    assert spreads == pytest.approx(deviations, abs=5e-7)


def test_spread_in_mean_sides__measures_each_coordinate_by_its_own_axis_of_the_mean_answer():
    assert one_box(STEADY).mean(dim=1).flatten().tolist() == [100.5, 50.25, 200.625, 130.5]
    spreads = [4 * spread_in_mean_sides(only(STEADY, coordinate)).item() for coordinate in range(4)]
    assert spreads == pytest.approx([0.012894, 0.008044, 0.011073, 0.016087], abs=5e-7)


def test_spread__its_deviation_divides_by_one_less_than_the_draws():
    torch.manual_seed(0)
    refined = torch.tensor(CANDIDATE, dtype=torch.float64) + torch.randn(1, 10, 1, 4, dtype=torch.float64)
    sides = (refined.mean(1)[..., 2:] - refined.mean(1)[..., :2]).repeat(1, 1, 2)
    biased = (((refined - refined.mean(1, keepdim=True)) ** 2).mean(1).sqrt() / sides).mean().item()
    assert biased / spread_in_mean_sides(refined).item() == pytest.approx(0.948683, abs=5e-7)


def test_spread_in_candidate_sides__with_deviations_by_all_draws_would_be_0_010431():
    boxes, refined = torch.tensor([[CANDIDATE]], dtype=torch.float64), one_box(STEADY)
    biased = (refined.std(dim=1, correction=0) / 90.0).mean().item()
    assert biased == pytest.approx(0.010431, abs=5e-7)
    assert biased / spread_in_candidate_sides(refined, boxes).item() == pytest.approx((3 / 4) ** 0.5)


def test_spread__of_equal_answers_is_0_also_for_boxes_without_size():
    assert spread_in_mean_sides(torch.zeros(1, 10, 1, 4)).item() == 0.0
    assert spread_in_candidate_sides(torch.zeros(1, 10, 1, 4), torch.zeros(1, 1, 4)).item() == 0.0


def test_spread__of_no_box_is_empty():
    assert spread_in_mean_sides(torch.zeros(2, 10, 0, 4)).shape == (2, 0)


def test_box_jitter__the_defaults_are_the_papers():
    config = BoxJitterConfig()
    assert (config.draws, config.scale, config.asks.above) == (10, 0.06, 0.5)
    assert config.reads == {"confidence"}
    assert config.writes == "box_jitter"


@pytest.fixture
def looked(tiny_context, make_view):
    """A tiny teacher, what it saw of two images, and three detections in each: the last one unsure."""
    context = tiny_context()
    teacher = EmaTeacherConfig().build(context.detector.build(context), context)
    torch.nn.init.normal_(teacher.network.roi.regress.weight, std=0.1)
    boxes = torch.tensor([[[8.0, 8.0, 30.0, 44.0], [20.0, 12.0, 44.0, 50.0], [2.0, 2.0, 20.0, 30.0]]]).repeat(2, 1, 1)
    found = Detections(
        boxes=boxes,
        labels=torch.tensor([[0, 1, 2], [2, 1, 0]]),
        valid=torch.ones(2, 3, dtype=torch.bool),
        scores={"confidence": torch.tensor([[0.9, 0.8, 0.4], [0.7, 0.95, 0.5]])},
    )
    return teacher, teacher.look(make_view("weak", [1, 2])).features, found


@pytest.mark.parametrize("definition", ["code", "paper"])
def test_box_jitter__scores_what_it_asks_about_and_nothing_else(looked, definition):
    teacher, features, found = looked
    scored = BoxJitter(BoxJitterConfig(definition=definition))(teacher, features, found)
    spread = scored.scores["box_jitter"]
    assert torch.isnan(spread[:, 2]).all()
    assert (spread[:, :2] > 0.0).all()
    assert spread[:, :2].isfinite().all()
    assert scored.boxes is found.boxes


def test_box_jitter__refines_by_the_regressor_of_the_pseudo_class(looked):
    """Regressor 1 answers the whole image for any start, the others the start; class 0 is the teacher's best."""
    teacher, features, found = looked
    with torch.no_grad():
        teacher.network.roi.regress.weight.zero_()
        teacher.network.roi.regress.bias.view(3, 4)[1] = torch.tensor([0.0, 0.0, 50.0, 50.0])
        teacher.network.roi.classify.bias[0] = 50.0
    scored = BoxJitter(BoxJitterConfig(asks={"above": 0.0}))(teacher, features, found)
    assert torch.equal(scored.scores["box_jitter"] == 0.0, found.labels == 1)


def test_box_jitter__asks_the_teacher_once_on_the_features_it_has(looked):
    teacher, features, found = looked
    asked = []
    teacher.network.roi.register_forward_hook(lambda *_: asked.append(True))
    teacher.network.backbone.register_forward_hook(lambda *_: asked.append(True))
    BoxJitter(BoxJitterConfig())(teacher, features, found)
    assert len(asked) == 1


def test_box_jitter__an_image_does_not_depend_on_its_batch(looked):
    teacher, features, found = looked
    scorer = BoxJitter(BoxJitterConfig())
    together = scorer(teacher, features, found).scores["box_jitter"]
    for row in (slice(0, 1), slice(1, 2)):
        alone = scorer(teacher, features[row], found[row]).scores["box_jitter"]
        torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-6, equal_nan=True)


def test_box_jitter__answers_are_clipped_to_the_image(looked):
    """A box over the whole image, shaken and answered beyond its border, is found again exactly."""
    teacher, features, _ = looked
    with torch.no_grad():
        teacher.network.roi.regress.weight.zero_()
        teacher.network.roi.regress.bias.view(3, 4)[:] = torch.tensor([0.0, 0.0, 5.0, 5.0])  # e times as large
    found = Detections(
        boxes=torch.tensor([[[0.0, 0.0, 64.0, 64.0]]] * 2),
        labels=torch.zeros(2, 1, dtype=torch.int64),
        valid=torch.ones(2, 1, dtype=torch.bool),
        scores={"confidence": torch.ones(2, 1)},
    )
    assert BoxJitter(BoxJitterConfig())(teacher, features, found).scores["box_jitter"].tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("length", [0, 2])
def test_box_jitter__nothing_found_asks_nothing(looked, length):
    teacher, features, _ = looked
    scored = BoxJitter(BoxJitterConfig())(teacher, features, Detections.empty(2, length=length))
    assert scored.scores["box_jitter"].shape == (2, length)
    assert torch.isnan(scored.scores["box_jitter"]).all()
