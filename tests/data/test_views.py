"""Views made of the same images: apart or sharing their draws, labels carried into each; and the shipped recipes."""

from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from ssodkit.data.augment.base import draw_view
from ssodkit.data.raw import RawBatch
from ssodkit.data.views import ViewConfig, ViewMaker, ViewsConfig, are_aligned
from ssodkit.detectors.rules import Sampler
from ssodkit.detectors.sampling import sample
from ssodkit.ops.homography import warp_boxes
from ssodkit.ops.random import derive_keys, make_key
from ssodkit.plugins import load_plugins
from ssodkit.structures.geometry import carry
from ssodkit.structures.teaching import BACKGROUND, Assignment, Targets

RECIPES = Path(__file__).parents[2] / "recipes" / "bases" / "views"
SHIPPED = ("digits", "soft_teacher", "supervised")
COLORS = ["identity", "auto_contrast", "equalize", "solarize", "color"]
COLORS += ["contrast", "brightness", "sharpness", "posterize"]
GEOMETRY = [{"type": "resize", "short": [40, 90]}, {"type": "flip"}]

load_plugins()


def images(count: int, height: int = 60, width: int = 80, seed: int = 0) -> RawBatch:
    """Noise, each with a box over its middle quarter."""
    targets = Targets.empty(count, length=2)
    targets.boxes[:, 0] = torch.tensor([width / 4, height / 4, 3 * width / 4, 3 * height / 4])
    targets.valid[:, 0] = True
    targets.weight[:, 0] = 1.0
    generator = torch.Generator().manual_seed(seed)
    return RawBatch(
        pixels=torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8),
        sizes=torch.tensor([[height, width]]).repeat(count, 1),
        image_ids=torch.arange(count) + 100,
        keys=torch.tensor([make_key(seed, row) for row in range(count)], dtype=torch.int64),
        targets=targets,
    )


def maker(visible: float = 0.0, **views: object) -> ViewMaker:
    configs = {name: ViewConfig.model_validate(written) for name, written in views.items()}
    return ViewMaker(configs, minimum_visible=visible, pad_to=32)


def shipped(name: str) -> ViewsConfig:
    return ViewsConfig.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text())["views"])


def test_make__row_i_is_one_image_in_every_view():
    raw = images(4)
    stream = maker(weak=GEOMETRY, strong=[*GEOMETRY, {"type": "invert"}]).make(raw)
    assert list(stream.views) == list(stream.targets) == ["weak", "strong"]
    for view in stream.views.values():
        assert torch.equal(view.image_ids, raw.image_ids)
        assert view.pixels.dtype == torch.uint8
        assert view.homography.dtype == torch.float32


def test_make__weak_and_strong_are_drawn_independently():
    stream = maker(weak=GEOMETRY, strong=GEOMETRY).make(images(400))
    flipped = torch.stack([view.homography[:, 0, 0] < 0 for view in stream.views.values()]).float()
    heights = torch.stack([view.sizes[:, 0] for view in stream.views.values()]).float()
    assert abs(torch.corrcoef(flipped)[0, 1]) < 0.2
    assert abs(torch.corrcoef(heights)[0, 1]) < 0.2


def test_make__a_view_that_draws_as_another_shares_its_geometry():
    written = {"transforms": [*GEOMETRY, {"type": "invert"}], "draws_as": "weak"}
    stream = maker(weak=GEOMETRY, strong=written).make(images(50))
    weak, strong = stream.views["weak"], stream.views["strong"]
    assert torch.equal(weak.homography, strong.homography)
    assert torch.equal(weak.sizes, strong.sizes)
    inside = torch.zeros_like(weak.pixels, dtype=torch.bool)
    for row, (height, width) in enumerate(weak.sizes.tolist()):
        inside[row, :, :height, :width] = True
    assert torch.equal(strong.pixels, (255 - weak.pixels) * inside)


def test_make__keys_come_from_the_raw_key_and_the_views_name():
    raw = images(3)
    stream = maker(weak=[], strong=[]).make(raw)
    assert torch.equal(stream.views["weak"].keys, derive_keys(raw.keys, "weak"))
    assert not torch.equal(stream.views["weak"].keys, stream.views["strong"].keys)


def test_make__samplers_draw_anew_in_a_view_that_draws_as_another():
    """As detectron2 does, which permutes the candidates of each row at random, also of an image that comes twice."""
    raw = images(3)
    stream = maker(weak=GEOMETRY, strong={"transforms": GEOMETRY, "draws_as": "weak"}).make(raw)
    everything = torch.ones(3, 1000, dtype=torch.bool)
    background = Assignment.matched(torch.full((3, 1000), BACKGROUND), torch.zeros(3, 1000), everything)
    drawn = [
        sample(background, Sampler(per_image=100, positive_share=0.5), view.keys, "rpn").weight > 0.0
        for view in stream.views.values()
    ]
    assert torch.equal(stream.views["strong"].keys, derive_keys(raw.keys, "strong"))
    assert torch.cat(drawn).sum(dim=1).tolist() == [100] * 6
    shared = (drawn[0] & drawn[1]).sum(dim=1)  # two draws of 100 among 1000 share about 10
    assert shared.max() < 30


def test_make__labels_lie_where_the_homography_leads_them():
    raw = images(30)
    stream = maker(view=[*GEOMETRY, {"type": "zoom", "factor": [0.5, 0.9]}]).make(raw)
    wanted = warp_boxes(raw.targets.boxes, stream.views["view"].homography)
    torch.testing.assert_close(stream.targets["view"].boxes[:, 0], wanted[:, 0])
    assert stream.targets["view"].valid.tolist() == [[True, False]] * 30


def test_make__boxes_less_visible_than_asked_are_dropped():
    raw = images(300, seed=1)
    shift = [{"type": "shift_x", "fraction": 0.7}]
    kept = {visible: maker(visible, view=shift).make(raw).targets["view"].valid[:, 0] for visible in (0.0, 0.4, 1.0)}
    # The box is 40 of 80 pixels wide and 20 from either edge; shifts are even between -56 and 56.
    assert kept[0.0].float().mean() == pytest.approx(1.0, abs=0.01)
    assert kept[0.4].float().mean() == pytest.approx(44 / 56, abs=0.07)
    assert kept[1.0].float().mean() == pytest.approx(20 / 56, abs=0.07)


def test_make__images_without_labels_and_no_images_are_fine():
    raw = images(2)
    unlabeled = RawBatch(raw.pixels, raw.sizes, raw.image_ids, raw.keys, Targets.empty(2))
    stream = maker(weak=GEOMETRY).make(unlabeled)
    assert stream.targets["weak"].boxes.shape == (2, 0, 4)
    assert len(maker(weak=GEOMETRY).make(raw[:0]).views["weak"].sizes) == 0


def test_make__a_view_depends_on_its_own_list_alone():
    raw = images(3)
    alone = maker(weak=GEOMETRY).make(raw).views["weak"]
    among = maker(strong=[{"type": "noise"}], weak=GEOMETRY).make(raw).views["weak"]
    assert torch.equal(alone.pixels, among.pixels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", SHIPPED)
def test_make__the_device_makes_the_same_views(name):
    views = shipped(name)
    raw = images(12, 240, 320)
    for stream in (views.labeled, views.unlabeled):
        made = views.maker(stream)
        here, there = made.make(raw), made.make(raw.to("cuda"))
        for view in stream:
            difference = here.views[view].pixels.int() - there.views[view].pixels.cpu().int()
            assert (difference != 0).float().mean() < 1e-3  # sums of reduced images and noise differ in the last bit
            assert torch.equal(here.views[view].homography, there.views[view].homography.cpu())


@pytest.mark.parametrize("name", SHIPPED)
def test_recipes__make_views_of_mixed_images(name):
    views = shipped(name)
    raw = images(2, 48, 64)
    for stream in (views.labeled, views.unlabeled, {"test": views.test}):
        for view in views.maker(stream).make(raw).views.values():
            assert view.pixels.shape[2] % views.pad_to == view.pixels.shape[3] % views.pad_to == 0
    assert {path.stem for path in RECIPES.glob("*.yaml")} >= set(SHIPPED)


def test_recipes__soft_teacher_resizes_and_flips_as_published():
    views = shipped("soft_teacher")
    assert views.pad_to == 32
    sizes, keys = torch.tensor([[480, 640]]).expand(2000, 2), torch.arange(2000)
    weak = draw_view(views.unlabeled["weak"].transforms, sizes, keys)
    assert (weak.sizes[:, 0].min(), weak.sizes[:, 0].max()) == (400, 1000)
    assert weak.sizes[:, 1].max() == 1333
    # Short sides of 1000 and more, 201 of the 801 that are drawn, all meet the limit of the long side.
    assert (weak.sizes[:, 0] == 1000).float().mean() == pytest.approx(201 / 801, abs=0.03)
    assert (weak.homography[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.03)
    assert not weak.homography[:, 0, 1].any()
    assert not weak.steps


def test_recipes__soft_teacher_lists_are_the_published_ones():
    views = shipped("soft_teacher")
    labeled, weak = views.labeled["labeled"].transforms, views.unlabeled["weak"].transforms
    strong = views.unlabeled["strong"].transforms
    assert [t.type for t in labeled] == ["resize", "flip", "one_of"]
    assert labeled[:2] == weak == strong[:2]
    assert [t.type for t in strong] == ["resize", "flip", "in_random_order", "erase"]
    color, geometry = strong[2].transforms
    assert color == labeled[2]
    assert [t.type for t in color.transforms] == COLORS
    assert [t.type for t in geometry.transforms] == ["shift_x", "shift_y", "rotate", "shear"]
    assert shipped("supervised").labeled["labeled"].transforms == labeled


def test_recipes__digits_teacher_sees_them_in_place_and_no_view_is_mirrored():
    views = shipped("digits")
    assert views.minimum_visible == 0.4
    raw = images(200, 96, 96)
    unlabeled = views.maker(views.unlabeled).make(raw).views
    labeled = views.maker(views.labeled).make(raw).views["labeled"]
    identity = torch.eye(3)
    assert torch.equal(unlabeled["weak"].homography, identity.expand(200, 3, 3))
    assert not (unlabeled["strong"].homography == identity).flatten(1).all(dim=1).any()
    assert 70 < (labeled.homography == identity).flatten(1).all(dim=1).sum() < 130
    for view in (labeled, unlabeled["strong"]):
        assert (view.homography[:, 0, 0] > 0).all()


def test_transport__teacher_boxes_lie_on_their_objects_in_the_student_view():
    """Carried from weak to strong by the two homographies; each box still frames the same pixels."""
    raw = images(60, 90, 120)
    raw.pixels.zero_()
    raw.pixels[:, :, 22:68, 30:90] = 255
    raw.targets.boxes[:, 0] = torch.tensor([30.0, 22.0, 90.0, 68.0])
    strong = [{"type": "resize", "short": [40, 90]}, {"type": "flip"}, {"type": "shift_y", "fraction": 0.1}]
    stream = maker(weak=GEOMETRY, strong={"transforms": strong, "fill": 0}).make(raw)
    carried = carry(stream.targets["weak"], stream.views["weak"], stream.views["strong"])
    for row in range(60):
        lit = (stream.views["strong"].pixels[row, 0] >= 128).nonzero()
        (top, left), (bottom, right) = lit.amin(dim=0).tolist(), (lit.amax(dim=0) + 1).tolist()
        assert [left, top, right, bottom] == pytest.approx(carried.boxes[row, 0].tolist(), abs=1.0)


def refused_views(**views: object) -> list[tuple[tuple[int | str, ...], str]]:
    with pytest.raises(ValidationError) as refused:
        ViewsConfig.model_validate({"labeled": {"only": []}, **views})
    return [(mistake["loc"], mistake["msg"]) for mistake in refused.value.errors()]


@pytest.mark.parametrize("name", ["weak", "missing"])
def test_views_config__draws_as_names_another_view(name):
    text = f"view 'weak' draws as '{name}', which is no other view of its stream"
    views = {"weak": {"transforms": [], "draws_as": name}}
    assert refused_views(unlabeled=views) == [(("unlabeled", "weak", "draws_as"), text)]


def test_views_config__draws_as_a_view_that_draws_as_a_third_is_refused():
    text = "view 'a' draws as 'b', which draws as 'c' itself; name a view that does not draw as another"
    views = {"a": {"draws_as": "b"}, "b": {"draws_as": "c"}, "c": []}
    assert refused_views(labeled=views) == [(("labeled", "a", "draws_as"), text)]


def test_views_config__views_that_draw_as_each_other_are_refused_both():
    views = {"weak": {"draws_as": "strong"}, "strong": {"draws_as": "weak"}}
    places, texts = zip(*refused_views(unlabeled=views), strict=True)
    assert places == (("unlabeled", "weak", "draws_as"), ("unlabeled", "strong", "draws_as"))
    assert texts[0].startswith("view 'weak' draws as 'strong', which draws as 'weak' itself")


ZOOM, PAINT = {"type": "zoom", "factor": [0.5, 2.0]}, {"type": "invert"}


@pytest.mark.parametrize(
    ("weak", "strong", "aligned"),
    [
        ([], [PAINT], True),
        ([], [ZOOM], False),
        ([ZOOM], [ZOOM], False),
        ([ZOOM], {"draws_as": "weak", "transforms": [PAINT, ZOOM, PAINT]}, True),
        ([ZOOM], {"draws_as": "weak", "transforms": [PAINT]}, False),
        (
            [{"type": "sometimes", "probability": 0.9, "then": [ZOOM]}],
            {
                "draws_as": "weak",
                "transforms": [
                    {"type": "sometimes", "probability": 0.9, "then": [PAINT]},  # takes the first one's key
                    {"type": "sometimes", "probability": 0.9, "then": [ZOOM]},
                ],
            },
            False,
        ),
    ],
)
def test_are_aligned__is_said_of_views_that_show_images_at_the_same_places(weak, strong, aligned):
    views = {"weak": ViewConfig.model_validate(weak), "strong": ViewConfig.model_validate(strong)}
    assert are_aligned(views, "weak", "strong") == are_aligned(views, "strong", "weak") == aligned
    made = ViewMaker(views, 0.0, 1).make(images(8)).views
    assert torch.equal(made["weak"].homography, made["strong"].homography) == aligned


def test_views_config__the_test_view_has_no_other_to_draw_as():
    (mistake,) = refused_views(test={"draws_as": "weak"})
    assert mistake == (("test", "draws_as"), "view 'test' draws as 'weak', which is no other view of its stream")


def test_views_config__an_unknown_transform_is_named():
    with pytest.raises(ValidationError, match="did you mean 'rotate'"):
        ViewsConfig.model_validate({"labeled": {"weak": [{"type": "rotat"}]}})


def test_maker__every_view_begins_with_the_size():
    half = {"type": "resize", "short": 30}
    written = {"labeled": {"seen": [{"type": "shift_x", "fraction": 0.2}]}, "test": [], "size": half}
    views, raw = ViewsConfig.model_validate(written), images(3)
    plainly = maker(seen=[half, {"type": "shift_x", "fraction": 0.2}], test=[half]).make(raw)
    sized = views.maker({**views.labeled, "test": views.test}).make(raw)
    assert sized.views["test"].sizes.tolist() == [[30, 40]] * 3
    for name, view in plainly.views.items():
        assert torch.equal(sized.views[name].pixels, view.pixels)
