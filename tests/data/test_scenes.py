import numpy as np
import pytest
from numpy.random import RandomState

from ssodkit.data.digits import read_digits, read_photographs
from ssodkit.data.scenes import LEVELS, Level, Material, draw_scene, make_material

GRAY = [np.full((200, 200, 3), 128, dtype=np.uint8)]


@pytest.fixture(scope="module")
def train() -> Material:
    return make_material(*read_digits(), read_photographs(), "train")


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """IoU of two boxes, counted pixel by pixel."""
    canvas = np.zeros((2, 300, 300), dtype=bool)
    for layer, (left, top, right, bottom) in zip(canvas, (first, second), strict=True):
        layer[top:bottom, left:right] = True
    return canvas.all(axis=0).sum() / canvas.any(axis=0).sum()


def test_make_material__parts_share_no_glyph_and_miss_none():
    glyphs, labels = read_digits()
    numbered = np.zeros((len(glyphs), 8, 8))
    numbered[:, 0, 0] = np.arange(len(glyphs))
    train, val = (make_material(numbered, labels, GRAY, part).coarse[:, 0, 0] for part in ("train", "val"))
    assert len(train) == 1347
    assert sorted([*train, *val]) == list(range(1797))


def test_make_material__labels_stay_with_their_glyphs():
    glyphs, labels = read_digits()
    val = make_material(glyphs, labels, GRAY, "val")
    drawn = {glyph.tobytes(): label for glyph, label in zip(glyphs, labels, strict=True)}
    assert [drawn[glyph.tobytes()] for glyph in val.coarse] == val.labels.tolist()


def test_make_material__parts_share_no_row_of_a_photograph():
    numbered = np.repeat(np.arange(200, dtype=np.uint8)[:, None, None], 3, axis=2)
    glyphs, labels = read_digits()
    rows = {}
    for part in ("train", "val"):
        table = make_material(glyphs, labels, [numbered], part).photographs[0]
        rows[part] = np.diff(table[:, 1, 0]).tolist()
    assert rows["train"] == list(range(124))
    assert rows["val"] == list(range(140, 200))


def test_make_material__finer_glyphs_keep_their_samples_and_have_a_margin():
    glyphs, labels = read_digits()
    material = make_material(glyphs, labels, GRAY, "train")
    assert np.array_equal(material.glyphs[:, 4:36:4, 4:36:4], material.coarse)
    assert not material.glyphs[:, ::4, ::4][:, 0].any()


def test_draw_scene__boxes_lie_inside_and_hardly_overlap(train):
    for level in LEVELS.values():
        for number in range(40):
            boxes = draw_scene(train, level, 96, RandomState(number)).boxes
            assert boxes.min() >= 0
            assert boxes.max() <= 96
            pairs = [(a, b) for place, a in enumerate(boxes) for b in boxes[:place]]
            assert all(overlap(*pair) <= 0.05 for pair in pairs)


def test_draw_scene__counts_and_sizes_are_the_levels(train):
    for name, level in LEVELS.items():
        scenes = [draw_scene(train, level, 96, RandomState(number)) for number in range(60)]
        counts = {len(scene.boxes) for scene in scenes}
        assert max(counts) == level.digits[1], name
        assert min(counts) >= 1, name
        longer = np.concatenate([(scene.boxes[:, 2:] - scene.boxes[:, :2]).max(axis=1) for scene in scenes])
        assert longer.min() > 0.7 * level.glyph[0] * 96, name
        assert longer.max() < 1.4 * level.glyph[1] * 96, name


def test_draw_scene__a_box_is_tight_around_its_digit():
    material = make_material(*read_digits(), GRAY, "train")
    level = Level(glyph=(0.2, 0.45), digits=(1, 4), distractors=0, opacity=(1.0, 1.0))
    for number in range(40):
        scene = draw_scene(material, level, 96, RandomState(number))
        background = np.median(scene.pixels.reshape(-1, 3), axis=0)
        inked = np.abs(scene.pixels - background).max(axis=-1) > 45
        outside = inked.copy()
        for left, top, right, bottom in scene.boxes:
            outside[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = False
            inside = inked[top:bottom, left:right]
            assert all(edge.any() for edge in (inside[:3], inside[-3:], inside[:, :3], inside[:, -3:]))
        assert not outside.any()


def test_draw_scene__boxes_do_not_depend_on_the_photographs(train):
    other = make_material(*read_digits(), GRAY, "train")
    for number in range(10):
        first, second = (draw_scene(m, LEVELS["easy"], 96, RandomState(number)) for m in (train, other))
        assert np.array_equal(first.boxes, second.boxes)
        assert np.array_equal(first.labels, second.labels)
        assert not np.array_equal(first.pixels, second.pixels)


@pytest.mark.parametrize("side", [32, 200])
def test_draw_scene__works_at_any_side(train, side):
    for number in range(10):
        scene = draw_scene(train, LEVELS["hard"], side, RandomState(number))
        assert scene.pixels.shape == (side, side, 3)
        assert len(scene.boxes) == len(scene.labels) > 0
