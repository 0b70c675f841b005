import numpy as np

from ssodkit.engine.pictures import Boxes, Row, class_color, draw_boxes, make_sheet


def boxes(*corners):
    labels = np.arange(len(corners))
    return Boxes(np.array(corners, np.float32).reshape(-1, 4), labels, [f"class {label}" for label in labels])


def crowd(count, side, scores=None):
    """Boxes of two classes, in rows, as wide as they are apart."""
    places = [(place % 10 * side, place // 10 * side) for place in range(count)]
    corners = np.array([[x, y, x + side, y + side] for x, y in places], np.float32).reshape(-1, 4)
    return Boxes(corners, np.arange(count) % 2, ["cat", "dog"], scores)


def test_draw_boxes__a_small_image_is_enlarged_and_its_boxes_with_it():
    picture = draw_boxes(np.zeros((48, 96, 3), np.uint8), boxes([24, 12, 72, 36]), smallest=288)
    assert picture.size == (288, 144)
    pixels = np.asarray(picture)
    assert tuple(pixels[72, 72]) == tuple(pixels[72, 216]) == class_color(0)
    assert not pixels[72, 100].any()


def test_draw_boxes__a_large_image_keeps_its_size_unless_a_largest_is_given():
    pixels = np.zeros((400, 600, 3), np.uint8)
    assert draw_boxes(pixels, boxes()).size == (600, 400)
    assert draw_boxes(pixels, boxes(), largest=300).size == (300, 200)


def test_draw_boxes__captions_stay_inside_the_image():
    plain = np.full((300, 300, 3), 128, np.uint8)
    picture = np.asarray(draw_boxes(plain, boxes([0, 0, 20, 20], [290, 5, 300, 30], [250, 280, 300, 300])))
    assert picture.shape == (300, 300, 3)
    for label, area in ((0, picture[:17, :50]), (1, picture[5:22, 230:]), (2, picture[263:280, 230:])):
        assert (area == class_color(label)).all(axis=-1).sum() > 100


def test_make_sheet__one_column_for_each_title_and_one_row_for_each_image():
    rows = [
        Row(np.full((96, 96, 3), shade, np.uint8), {"labels": boxes([10, 10, 50, 50]), "teacher": boxes()})
        for shade in (60, 200)
    ]
    sheet = make_sheet(rows)
    assert sheet.size == (2 * 288 + 3 * 8, 34 + 2 * (288 + 8))
    pixels = np.asarray(sheet)
    assert [tuple(pixels[34 + 280, left]) for left in (8 + 280, 8 + 288 + 8 + 280)] == [(60, 60, 60)] * 2
    assert tuple(pixels[34 + 288 + 8 + 280, 8 + 280]) == (200, 200, 200)


def test_class_color__differs_among_twenty_classes():
    assert len({class_color(label) for label in range(20)}) == 20


def test_draw_boxes__a_crowd_is_enlarged_and_has_a_legend_instead_of_names():
    pixels = np.full((100, 100, 3), 128, np.uint8)
    picture = draw_boxes(pixels, crowd(100, 10, [0.5] * 100))
    assert picture.size == (640, 640 + 30)
    legend = np.asarray(picture)[640:]
    for label in (0, 1):
        assert (legend == class_color(label)).all(axis=-1).sum() > 100
    assert draw_boxes(pixels, crowd(7, 14, [0.5] * 7)).size == (288, 288)


def test_draw_boxes__in_a_crowd_most_of_the_picture_stays_visible():
    pixels = np.full((640, 640, 3), 128, np.uint8)
    for scores in (None, [0.5] * 100):
        shown = (np.asarray(draw_boxes(pixels, crowd(100, 64, scores)))[:640] == 128).all(axis=-1).mean()
        assert shown > 0.75


def test_draw_boxes__no_caption_covers_another_one():
    pixels = np.full((300, 300, 3), 128, np.uint8)
    same = [[100, 100, 140, 140]] * 5
    picture = np.asarray(draw_boxes(pixels, boxes(*same)))
    plates = [(picture == class_color(label)).all(axis=-1).sum() for label in range(5)]
    assert sum(count > 300 for count in plates) == 3  # above, below its top edge, and above its bottom edge


def test_make_sheet__with_a_crowd_all_images_are_larger_and_a_legend_stands_below():
    rows = [Row(np.zeros((96, 96, 3), np.uint8), {"labels": crowd(count, 9), "teacher": boxes()}) for count in (2, 50)]
    assert make_sheet(rows).size == (2 * 480 + 3 * 8, 34 + 2 * (480 + 8) + 30)
