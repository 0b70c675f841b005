import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from ssodkit.data.annotations import Category, ImageSet, make_image_set

CATEGORIES = (Category(3, "cat"), Category(7, "dog"))


def three_images() -> ImageSet:
    """Images 30, 10 and 20 with two, no and one box; the boxes are given in another order."""
    return make_image_set(
        root=Path("/data"),
        names=["b.jpg", "sub/å.jpg", "c.jpg"],
        ids=[30, 10, 20],
        sizes=[(40, 60), (50, 50), (60, 40)],
        categories=CATEGORIES,
        image_of_box=[2, 0, 0],
        boxes=[[1, 2, 3, 4], [10, 10, 20, 30], [0, 0, 5, 5]],
        labels=[1, 0, 1],
        areas=[4, 111, 25],
        crowd=[False, False, True],
        difficult=[True, False, False],
    )


def test_image_set__boxes_follow_their_images():
    images = three_images()
    assert images.offsets.tolist() == [0, 2, 2, 3]
    assert images.boxes.tolist() == [[10, 10, 20, 30], [0, 0, 5, 5], [1, 2, 3, 4]]
    assert images.labels.tolist() == [0, 1, 1]
    assert images.areas.tolist() == [111, 25, 4]
    assert images.category_ids.tolist() == [3, 7]


def test_image_set__areas_are_those_of_the_boxes_where_none_are_annotated():
    images = make_image_set(Path(), ["a"], [1], [(9, 9)], CATEGORIES, [0], [[1, 2, 3, 5]], [0])
    assert images.areas.tolist() == [6.0]


def test_image_set__a_name_may_hold_any_character():
    assert three_images().path(1) == Path("/data/sub/å.jpg")
    undecodable = os.fsdecode(b"\xff.jpg")
    assert make_image_set(Path("/data"), [undecodable], [1], [(1, 1)]).name(0) == undecodable


def test_positions__ids_are_found_in_any_order():
    assert three_images().positions([20, 30, 20]).tolist() == [2, 0, 2]
    with pytest.raises(KeyError, match="25"):
        three_images().positions([30, 25])


def test_positions__nothing_asked_of_nothing_is_nothing():
    assert three_images().subset([]).positions([]).tolist() == []
    with pytest.raises(KeyError, match="30"):
        three_images().subset([]).positions([30])


def test_subset__images_keep_their_boxes_and_names():
    chosen = three_images().subset([2, 0])
    assert chosen.ids.tolist() == [20, 30]
    assert [chosen.name(0), chosen.name(1)] == ["c.jpg", "b.jpg"]
    assert chosen.sizes.tolist() == [[60, 40], [40, 60]]
    assert chosen.boxes.tolist() == [[1, 2, 3, 4], [10, 10, 20, 30], [0, 0, 5, 5]]
    assert chosen.difficult.tolist() == [True, False, False]
    assert chosen.offsets.tolist() == [0, 1, 3]


def test_with_boxes__forgets_the_others():
    images = three_images().with_boxes(np.array([False, True, True]))
    assert images.offsets.tolist() == [0, 1, 1, 2]
    assert images.labels.tolist() == [1, 1]
    assert images.ids.tolist() == [30, 10, 20]


def test_boxes_per_image__counts_all_or_those_named():
    images = three_images()
    assert images.boxes_per_image().tolist() == [2, 0, 1]
    assert images.boxes_per_image(~images.crowd).tolist() == [1, 0, 1]


def test_without_labels__nothing_about_boxes_is_left():
    images = three_images().without_labels()
    assert images.ids.tolist() == [30, 10, 20]
    assert images.boxes_per_image().tolist() == [0, 0, 0]
    assert images.categories == ()
    for column in (images.boxes, images.labels, images.areas, images.crowd, images.difficult):
        assert len(column) == 0


def test_targets__are_padded_and_ignored_boxes_weigh_nothing():
    targets = three_images().targets([0, 1, 2])
    assert targets.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert targets.boxes[2].tolist() == [[1, 2, 3, 4], [0, 0, 0, 0]]
    assert targets.labels.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert targets.weight.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert targets.crowd.tolist() == [[False, True], [False, False], [False, False]]
    assert not targets.all_teach
    assert three_images().targets([1]).all_teach


def test_targets__of_images_without_boxes_are_empty():
    assert three_images().targets([1, 1]).boxes.shape == (2, 0, 4)
    assert three_images().targets([]).boxes.shape == (0, 0, 4)


def coco_sized_set(images: int = 118_287, boxes: int = 860_001) -> ImageSet:
    """As many images and boxes as COCO's train2017."""
    random = np.random.RandomState(0)
    return make_image_set(
        Path("/data"),
        [f"{number:012d}.jpg" for number in range(images)],
        np.arange(images),
        np.full((images, 2), 480),
        [Category(number, str(number)) for number in range(80)],
        random.randint(0, images, size=boxes),
        np.tile(np.array([[0, 0, 10, 10]], dtype=np.float32), (boxes, 1)),
        random.randint(0, 80, size=boxes),
    )


class ReadEverything(Dataset[torch.Tensor]):
    """Each item reads all annotations and says how much private memory this process has, before and after."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, index: int) -> torch.Tensor:
        before = private_bytes()
        for start in range(0, len(self.images), 1000):
            self.images.targets(range(start, min(start + 1000, len(self.images))))
        self.images.name(index)
        return torch.tensor([before, private_bytes()])


def private_bytes() -> int:
    """Memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def test_image_set__workers_share_the_annotations_of_coco():
    images = coco_sized_set()
    loader = DataLoader(ReadEverything(images), batch_size=None, sampler=range(2), num_workers=2)
    grown = sum(after - before for before, after in (item.tolist() for item in loader))
    assert grown < 20 * 2**20


def test_image_set__one_whole_copy_is_small():
    images = coco_sized_set()
    columns = [value for value in vars(images).values() if isinstance(value, np.ndarray)]
    assert len(columns) == 11
    assert sum(column.nbytes for column in columns) < 30 * 2**20
