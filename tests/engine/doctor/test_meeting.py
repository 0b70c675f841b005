import pytest
import torch

from ssodkit.assigners.matchers.max_iou import MaxIouConfig
from ssodkit.data.sets import open_data
from ssodkit.engine.build import build_method
from ssodkit.engine.doctor.meeting import check_meeting

LIMITS = (
    "detector.test.at_most=2",
    "method.selector.at_most=1",
    "method.scorers.0.asks.at_most=1",
    "detector.proposals.training.keep=3",
    "detector.stages.roi.sampler.per_image=2",
)


@pytest.fixture(scope="module")
def meet(tiny_recipe):
    """Overrides, and the name of a recipe -> what does not meet the boxes of its digits."""

    def check(*overrides, name="soft_teacher"):
        recipe = tiny_recipe("data.percent=100", *overrides, name=name)
        sets = open_data(recipe.data)
        method = build_method(recipe, len(sets.categories), load_weights=False, labeled_boxes_per_image=(1.0,) * 10)
        return check_meeting(recipe, sets, method.networks())

    return check


@pytest.mark.parametrize("name", ["soft_teacher", "supervised_retinanet", "supervised_fam3d"])
def test_check_meeting__says_nothing_of_the_shipped_recipes(meet, name):
    assert meet(name=name) == []


def test_check_meeting__boxes_are_those_of_mosaics_where_labeled_images_are(meet):
    *_, finding = meet("views.labeled_mosaic={side: 32}")
    assert (finding.area, finding.where) == ("sizes", "views")
    assert finding.what.startswith("the boxes have a median side of")  # in images of 96 pixels


def test_check_meeting__anchors_of_another_size_are_named_with_better_ones(meet):
    (finding,) = meet("detector.anchors.sides=[[100],[150]]")
    assert (finding.severity, finding.area, finding.where) == ("warning", "anchors", "detector.anchors")
    assert finding.what.startswith("100 % of the labeled boxes overlap no anchor by an IoU of 0.6, from which on")
    assert "anchors 100 to 150" in finding.what
    assert "enlarge the images, `views.size: {type: resize, short: " in finding.how
    sides = finding.how.split("Set sides: ")[1].split(", ratios: ")
    ratios, left = sides[1].split(", which leaves ")
    assert int(left.split(" %")[0]) < 30
    assert meet(f"detector.anchors.sides={sides[0]}", f"detector.anchors.ratios={ratios}") == []


def test_check_meeting__a_matcher_that_asks_for_more_than_an_iou_has_no_threshold(meet):
    assert MaxIouConfig(positive=0.6).learns_from == 0.6
    assert meet("detector.anchors.sides=[[100],[150]]", name="supervised_fam3d") == []


def test_check_meeting__limits_below_what_the_labels_have_are_named_together(meet):
    (finding,) = meet(*LIMITS)
    assert (finding.severity, finding.area) == ("warning", "limits")
    for override in LIMITS:
        key, value = override.split("=")
        assert f"{key} {value}, " in finding.what
        assert f"{key}=10" in finding.how
    assert "detector.stages.roi.sampler.per_image 2, candidates, 50% of them positive" in finding.what


def test_check_meeting__another_size_in_the_test_is_noticed(meet):
    (finding,) = meet("views.test=[{type: resize, short: 192}]")
    assert (finding.area, finding.where) == ("sizes", "views")
    before, after = (
        int(part.split()[-1]) for part in (finding.what.split(" in training")[0], finding.what.split(" pixels")[0])
    )
    assert after == pytest.approx(2 * before, abs=3)


def test_check_meeting__a_test_of_one_of_the_sizes_of_training_is_fine(meet):
    """Half of the boxes are seen at less than 0.6 of their size, and yet some as in the test."""
    jitter = "[{type: scale_jitter, side: 96, factor: [0.01, 1.1]}]"
    assert not any(found.where == "views" for found in meet(f"views.labeled.labeled={jitter}"))
    smaller = "[{type: scale_jitter, side: 96, factor: [0.01, 0.9]}]"
    assert any(found.where == "views" for found in meet(f"views.labeled.labeled={smaller}"))


def test_check_meeting__boxes_smaller_than_a_cell_are_noticed(meet):
    findings = meet("views.size={type: resize, short: 12}")
    small = next(finding for finding in findings if finding.where == "views.size")
    assert small.what.endswith("are smaller than a cell of the finest level, 4 pixels")


def test_check_meeting__uses_no_global_generator(meet):
    before = torch.get_rng_state()
    meet()
    assert torch.equal(torch.get_rng_state(), before)
