import numpy as np

from ssodkit.engine.pictures import Boxes, Row, class_color, draw_boxes, make_sheet


def boxes(*corners):
    labels = np.arange(len(corners))
    return Boxes(np.array(corners, np.float32).reshape(-1, 4), labels, [f"class {label}" for label in labels])


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
