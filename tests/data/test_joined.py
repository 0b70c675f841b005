import os
from pathlib import Path

import numpy as np
import pytest

from ssodkit.data.annotations import Category, ImageSet, make_image_set
from ssodkit.data.joined import join
from ssodkit.errors import DataError

CAT, DOG, BIRD = Category(2, "cat"), Category(7, "dog"), Category(0, "bird")


def images_in(
    root: Path, names: list[str], categories: tuple[Category, ...] = (), labels: list[int] | None = None
) -> ImageSet:
    """Images of empty files with one box each, if there are labels; boxes grow along the list."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    labels = labels or []
    boxes = [[1, 1, 5 + place, 9] for place in range(len(labels))]
    return make_image_set(
        root, names, range(5, 5 + len(names)), [(20, 30)] * len(names), categories, range(len(labels)), boxes, labels,
        notes=[root.name],
    )  # fmt: skip


def test_join__keeps_order_boxes_and_files_and_numbers_images_anew(tmp_path):
    one = images_in(tmp_path / "one", ["b.jpg", "a.jpg"], (CAT, DOG), [0, 1])
    two = images_in(tmp_path / "two" / "in", ["a.jpg"], (CAT, DOG), [1])
    whole = join([one, two])
    assert whole.ids.tolist() == [1, 2, 3]
    assert whole.root == tmp_path
    assert [whole.name(index) for index in range(3)] == ["one/b.jpg", "one/a.jpg", "two/in/a.jpg"]
    assert whole.boxes.tolist() == [[1, 1, 5, 9], [1, 1, 6, 9], [1, 1, 5, 9]]
    assert whole.labels.tolist() == [0, 1, 1]
    assert whole.notes == ("one", "in")
    assert whole.areas.tolist() == [32, 40, 32]


def test_join__classes_are_joined_by_name_and_new_ones_follow(tmp_path):
    one = images_in(tmp_path / "one", ["a", "b"], (DOG, CAT), [0, 1])
    two = images_in(tmp_path / "two", ["a", "b"], (BIRD, Category(7, "cat")), [0, 1])
    whole = join([one, two])
    assert whole.categories == (DOG, CAT, Category(8, "bird"))
    assert whole.labels.tolist() == [0, 1, 2, 1]


def test_join__one_set_stays_as_it_is(tmp_path):
    one = images_in(tmp_path, ["a"], (CAT,), [0])
    assert join([one]) is one


def test_join__relative_and_absolute_folders_meet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = join([images_in(Path("one"), ["a"]), images_in(tmp_path / "two", ["b"])], labeled=False)
    assert [whole.path(index) for index in range(2)] == [tmp_path / "one" / "a", tmp_path / "two" / "b"]
    whole = join([images_in(Path("one"), ["a"]), images_in(Path("two"), ["b"])], labeled=False)
    assert [str(whole.path(index)) for index in range(2)] == ["one/a", "two/b"]


def test_join__a_file_of_two_sources_is_taken_once_where_its_boxes_agree(tmp_path):
    one = images_in(tmp_path / "one", ["a", "b"], (CAT, DOG), [0, 1])
    os.symlink(tmp_path / "one", tmp_path / "again")
    two = images_in(tmp_path / "again", ["a", "c"], (DOG, CAT), [1, 0])
    whole = join([one, two])
    assert [whole.name(index) for index in range(3)] == ["one/a", "one/b", "again/c"]
    assert (whole.ids.tolist(), whole.labels.tolist()) == ([1, 2, 3], [0, 1, 1])
    assert whole.notes[-1] == f"1 images are in two sources, and are taken once: {tmp_path / 'again' / 'a'}"


@pytest.mark.parametrize(("labels", "table"), [([1], (CAT, DOG)), ([], (CAT, DOG)), ([0, 0], (DOG,))])
def test_join__a_file_of_two_sources_with_other_boxes_is_named_with_both(tmp_path, labels, table):
    one = images_in(tmp_path, ["a", "b"], (CAT, DOG), [0, 1])
    two = images_in(tmp_path, ["a"], table, labels[:1])
    path, count = tmp_path / "a", len(labels[:1])
    with pytest.raises(DataError) as caught:
        join([one, two])
    said = f"1 images are in two sources with different boxes: {path} (of source 0, 1 boxes) = {path} (of source 1, "
    assert str(caught.value).startswith(f"{said}{count} boxes)")


def test_join__of_unlabeled_images_the_first_source_counts(tmp_path):
    one = images_in(tmp_path, ["a", "b"])
    two = images_in(tmp_path, ["b", "c"], (CAT,), [0, 0])
    whole = join([one, two], labeled=False)
    assert [whole.name(index) for index in range(3)] == ["a", "b", "c"]
    assert (len(whole.boxes), whole.categories) == (0, ())


def test_join__order_of_boxes_does_not_matter(tmp_path):
    boxes = np.array([[1, 1, 5, 9], [1, 1, 8, 9]])
    (tmp_path / "a").touch()
    sets = [
        make_image_set(tmp_path, ["a"], [1], [(20, 30)], (CAT,), [0, 0], boxes[order], [0, 0])
        for order in ([0, 1], [1, 0])
    ]
    assert len(join(sets)) == 1


def test_join__empty_sets_are_no_trouble(tmp_path):
    assert len(join([images_in(tmp_path, []), images_in(tmp_path, [])], labeled=False)) == 0
