import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.config import ListFolds
from ssodkit.data.shares import Share
from ssodkit.data.splits import Fold, draw_fold, draw_places, draw_shots, few_shots
from ssodkit.errors import DataError

COCO = 118_287
"""Images of COCO's train2017."""


def images_with_ids(ids: list[int], with_box: list[int] | None = None, crowd: list[int] | None = None) -> ImageSet:
    """Images with one box each; `with_box` names the ids that have one, `crowd` those whose box is a crowd."""
    owners = [place for place, number in enumerate(ids) if with_box is None or number in with_box]
    return make_image_set(
        Path(),
        [f"{number}.jpg" for number in ids],
        ids,
        [(9, 9)] * len(ids),
        [Category(1, "cat")],
        owners,
        [[0, 0, 5, 5]] * len(owners),
        [0] * len(owners),
        crowd=[ids[owner] in (crowd or []) for owner in owners],
    )


def write_list(folder: Path, content: object) -> ListFolds:
    (folder / "folds.json").write_text(json.dumps(content))
    return ListFolds(file=folder / "folds.json")


@pytest.mark.parametrize(
    ("mode", "percent", "fold", "count", "smallest", "total"),
    [
        ("stac", 1.0, 1, 1174, [15, 18, 52], 69415895),
        ("stac", 1.0, 2, 1175, [92, 170, 190], 67270491),
        ("stac", 1.0, 3, 1174, [53, 129, 161], 67872500),
        ("stac", 1.0, 4, 1174, [181, 367, 383], 70749336),
        ("stac", 1.0, 5, 1175, [44, 122, 144], 69156811),
        ("stac", 2.0, 1, 2329, [15, 18, 52], 135369791),
        ("stac", 5.0, 1, 5764, [15, 18, 27], 337703888),
        ("stac", 10.0, 1, 11285, [9, 15, 18], 668826456),
        ("stac", 10.0, 5, 11235, [10, 18, 20], 671351566),
        ("soft_teacher", 1.0, 1, 1182, [91, 142, 293], 68109903),
        ("soft_teacher", 10.0, 1, 11828, [1, 38, 66], 692108723),
    ],
)
def test_draw_places__are_those_of_the_protocol(mode, percent, fold, count, smallest, total):
    places = draw_places(mode, COCO, percent, fold)
    assert len(places) == count
    assert places[:3].tolist() == smallest
    assert places.sum() == total
    assert (np.diff(places) > 0).all()


@pytest.mark.parametrize(("mode", "first"), [("stac", [98539, 77708, 5192]), ("soft_teacher", [105285, 107335, 49358])])
def test_draw_places__its_first_draws_are_those_of_the_protocol(mode, first):
    """Draws of one seed are nested, so that the fewest that one, two and three draws leave say which came when."""
    percents = [100.5 * count / COCO for count in (1, 2, 3)]
    drawn = [set(draw_places(mode, COCO, percent, 1).tolist()) for percent in percents]
    assert drawn == [set(first[:count]) for count in (1, 2, 3)]


@pytest.mark.parametrize(
    ("percent", "counts"),
    [
        (1.0, [1174, 1175, 1174, 1174, 1175]),
        (2.0, [2329, 2346, 2342, 2337, 2343]),
        (5.0, [5764, 5772, 5756, 5766, 5762]),
        (10.0, [11285, 11261, 11234, 11262, 11235]),
    ],
)
def test_draw_places__stac_keeps_fewer_than_it_draws(percent, counts):
    assert [len(draw_places("stac", COCO, percent, fold)) for fold in range(1, 6)] == counts


@pytest.mark.parametrize(("percent", "count"), [(1.0, 1182), (2.0, 2365), (5.0, 5914), (10.0, 11828)])
def test_draw_places__soft_teacher_keeps_all_it_draws(percent, count):
    assert len(draw_places("soft_teacher", COCO, percent, 3)) == count


@pytest.mark.parametrize("mode", ["stac", "soft_teacher"])
def test_draw_places__folds_of_one_seed_are_nested(mode):
    small, large = (set(draw_places(mode, COCO, percent, 2).tolist()) for percent in (1.0, 10.0))
    assert small < large


def test_draw_places__the_share_is_truncated():
    assert len(draw_places("soft_teacher", 2000, 2.5, 1)) == 50
    assert len(draw_places("soft_teacher", 199, 1.0, 1)) == 1


def test_draw_fold__places_count_in_file_order_and_ids_are_sorted():
    ids = np.random.RandomState(0).permutation(1000)
    fold = draw_fold(images_with_ids(ids.tolist()), "soft_teacher", Share(5.0), 1)
    assert list(fold.image_ids) == sorted(ids[draw_places("soft_teacher", 1000, 5.0, 1)].tolist())
    assert (fold.mode, fold.percent, fold.fold) == ("soft_teacher", 5.0, 1)


@pytest.mark.parametrize("mode", ["stac", "soft_teacher"])
def test_draw_fold__all_images_are_labeled_at_100_percent(mode):
    fold = draw_fold(images_with_ids([5, 3, 9]), mode, Share(), 1)
    assert fold.image_ids == (3, 5, 9)
    assert fold.mode == "all"


@pytest.mark.parametrize("mode", ["stac", "soft_teacher"])
def test_draw_fold__a_share_without_an_image_says_the_least(mode):
    with pytest.raises(DataError, match=r"1 percent of 50 training images is not one image.*data\.percent to 2 or"):
        draw_fold(images_with_ids(list(range(50))), mode, Share(1.0), 1)


def test_draw_fold__a_list_counts_in_the_sorted_images_with_a_box(tmp_path):
    # In id order, images 10, 30 and 50 have a box that is no crowd: these are the positions 0, 1 and 2.
    images = images_with_ids([50, 20, 10, 40, 30], with_box=[10, 30, 40, 50], crowd=[40])
    mode = write_list(tmp_path, {"1.0": {"0": [0], "1": [2, 0]}, "10": {"1": [1]}})
    assert draw_fold(images, mode, Share(1.0), 1).image_ids == (10, 50)
    assert draw_fold(images, mode, Share(1.0), 0).image_ids == (10,)
    fold = draw_fold(images, mode, Share(10.0), 1)
    assert (fold.mode, fold.image_ids) == ("list", (30,))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"5": {"1": [0]}}, "has no list for 1 percent, run 1; it has the percents '5'"),
        ({"1": {"7": [0]}}, "has no list for 1 percent, run 1; it has the runs '7'"),
        ({"1": {"a\rb": [0]}}, r"it has the runs 'a\rb'."),
        ({"1": {"1": []}}, "1 percent, run 1 is an empty list"),
        ({"1": {"1": [3]}}, "position 3; positions are whole numbers below 3"),
        ({"1": {"1": [0.5]}}, "position 0.5"),
        ({"1": {"1": [-1]}}, "position -1"),
        ({"1": {"1": [2, 2]}}, "position 2 twice"),
        ([1, 2], "is no list of folds"),
        ({"one": {"1": [0]}}, "is no list of folds"),
    ],
)
def test_draw_fold__a_list_that_does_not_fit_is_refused(tmp_path, content, said):
    with pytest.raises(DataError) as caught:
        draw_fold(images_with_ids([1, 2, 3]), write_list(tmp_path, content), Share(1.0), 1)
    assert said in str(caught.value)
    assert "folds.json" in str(caught.value)


def test_draw_fold__a_missing_list_is_said(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json cannot be read"):
        draw_fold(images_with_ids([1]), ListFolds(file=tmp_path / "absent.json"), Share(1.0), 1)


def photographs(shown: list[list[int]]) -> ImageSet:
    """Images 100, 101, ... that show these classes, of four."""
    owners = [place for place, labels in enumerate(shown) for _ in labels]
    labels = [label for row in shown for label in row]
    return make_image_set(
        Path(), [f"{place}.jpg" for place in range(len(shown))], range(100, 100 + len(shown)), [(9, 9)] * len(shown),
        [Category(number, name) for number, name in enumerate(["red", "white", "platelet", "other"])],
        owners, [[0, 0, 5, 5]] * len(owners), labels,
    )  # fmt: skip


@pytest.fixture
def blood() -> ImageSet:
    """60 images: all but the last ten show class 0, every third class 1, three class 2, none class 3."""
    rows = [[0] + [1] * (place % 3 == 0) + [2] * (place in (4, 9, 20)) for place in range(50)]
    return photographs([*rows, *([[]] * 10)])


@pytest.mark.parametrize("shots", [1, 2, 5, 10, 70])
def test_draw_shots__each_class_is_shown_by_so_many_images_or_by_all_that_show_it(blood, shots):
    places = draw_shots(blood, shots, fold=1)
    counts = [sum(label in blood.labels[blood.offsets[p] : blood.offsets[p + 1]] for p in places) for label in range(3)]
    assert all(count >= min(shots, total) for count, total in zip(counts, [50, 17, 3], strict=True))
    assert counts[2] == min(shots, 3)
    assert len(places) == {1: 2, 2: 3, 5: 7, 10: 12, 70: 50}[shots]  # image 9 counts twice, and class 0 comes along


def test_draw_shots__fewer_are_among_more_and_folds_differ(blood):
    drawn = [set(draw_shots(blood, shots, fold=3).tolist()) for shots in range(1, 12)]
    assert all(few <= many for few, many in itertools.pairwise(drawn))
    assert drawn[4] != set(draw_shots(blood, 5, fold=4).tolist())


def test_draw_shots__depend_on_ids_and_not_on_the_order_in_the_file(blood):
    order = np.random.RandomState(0).permutation(len(blood))
    drawn = draw_fold(blood, "stac", Share(shots=5), 2)
    assert draw_fold(blood.subset(order), "stac", Share(shots=5), 2) == drawn
    assert (drawn.mode, drawn.shots, drawn.facts()["shots"]) == ("shots", 5, 5)
    assert drawn.describe() == "5 shots a class, fold 2"


def test_draw_shots__boxes_that_teach_nothing_show_nothing():
    shown = images_with_ids([1, 2, 3], crowd=[2, 3])
    assert draw_shots(shown, 2, fold=1).tolist() == [0]
    with pytest.raises(DataError, match=r"data\.shots: no training image has a box that can be learned"):
        draw_fold(images_with_ids([1, 2], crowd=[1, 2]), "stac", Share(shots=1), 1)


def test_few_shots__names_the_classes_that_run_out(blood):
    (said,) = few_shots(blood, 5)
    assert said.endswith("all of them are labeled: platelet (3)")
    assert few_shots(blood, 3) == ()


def test_fold__the_hash_stands_for_the_images():
    fold = Fold("stac", 1.0, None, 1, (3, 5, 9))
    assert fold.hash == Fold("list", 10.0, None, 2, (3, 5, 9)).hash
    assert fold.hash != Fold("stac", 1.0, None, 1, (3, 5, 10)).hash
    assert len(fold.hash) == 16


def test_fold__is_saved_with_its_images_and_their_hash(tmp_path):
    fold = draw_fold(images_with_ids(list(range(500))), "stac", Share(5.0), 2)
    fold.save(tmp_path / "fold.json")
    saved = json.loads((tmp_path / "fold.json").read_text(encoding="utf-8"))
    assert saved == {
        "mode": "stac",
        "percent": 5.0,
        "shots": None,
        "fold": 2,
        "image_ids": list(fold.image_ids),
        "validation_ids": [],
        "test_ids": [],
        "hash": fold.hash,
    }
    assert [file.name for file in tmp_path.iterdir()] == ["fold.json"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"1": {"1": [' + "1" * 5000 + "]}}", "more than 4,300 digits"),
        ('{"1": {"1": [0]}, "1.0": {"1": [1]}}', "the percent 1 twice"),
        ('{"1": {"1": [0], "1": [1]}}', "the same key stands twice in one object: '1'"),
        ('{"1": {"1": [[[[0]]]]}}', "position [[[0]]]"),
        ("\0", "is no JSON"),
        ("", "is no JSON"),
    ],
)
def test_draw_fold__text_that_python_stumbles_over_is_refused(tmp_path, text, said):
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(DataError) as caught:
        draw_fold(images_with_ids([1, 2, 3]), ListFolds(file=tmp_path / "folds.json"), Share(1.0), 1)
    assert said in str(caught.value)
    assert "folds.json" in str(caught.value)
