import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssodkit.data.config import DigitsSource
from ssodkit.data.decode import decode_image
from ssodkit.data.digits import cache_folder, folder_name, make_scene, open_digits, read_material, read_photographs
from ssodkit.errors import DataError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SSODKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def digest(*arrays: np.ndarray) -> str:
    joined = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    return hashlib.sha256(joined).hexdigest()[:16]


def first_scenes(part: str, level: str = "easy") -> list:
    source = DigitsSource(part=part, level=level)
    material = read_material(source.part)
    return [make_scene(source, material, index) for index in range(20)]


@pytest.mark.parametrize(
    ("part", "level", "expected"),
    [("train", "easy", "896f392471515826"), ("val", "easy", "3e5591a860809721"), ("train", "hard", "ef69324889442653")],
)
def test_make_scene__boxes_and_labels_are_the_same_everywhere(part, level, expected):
    scenes = first_scenes(part, level)
    assert digest(*(scene.boxes for scene in scenes), *(scene.labels for scene in scenes)) == expected


def test_read_photographs__are_decoded_as_they_were_when_the_scenes_were_hashed():
    """If this fails and the boxes are right, a JPEG decoder changed, and pixels of scenes change with it."""
    assert digest(*read_photographs()) == "99310b92a8963a4b"


@pytest.mark.parametrize(("part", "expected"), [("train", "1ddef142ed7fcfe1"), ("val", "cac02e8a91e6a659")])
def test_make_scene__pixels_are_the_same_everywhere(part, expected):
    assert digest(*(scene.pixels for scene in first_scenes(part))) == expected


def test_make_scene__seeds_and_parts_differ():
    material = read_material("train")
    pixels = [
        make_scene(source, material, index).pixels.tobytes()
        for source in (DigitsSource(part="train"), DigitsSource(part="train", seed=1), DigitsSource(part="val"))
        for index in (0, 1)
    ]
    assert len(set(pixels)) == 6


def test_open_digits__what_is_read_is_what_was_drawn(cache):
    source = DigitsSource(part="val", images=6)
    images = open_digits(source)
    material = read_material("val")
    assert [category.name for category in images.categories] == list("0123456789")
    for index in range(6):
        scene = make_scene(source, material, index)
        rows = slice(*images.offsets[index : index + 2])
        assert np.array_equal(images.boxes[rows], scene.boxes)
        assert np.array_equal(images.labels[rows], scene.labels)
        assert np.array_equal(decode_image(images.path(index), (96, 96)), scene.pixels)


def test_open_digits__a_small_set_is_the_beginning_of_a_large_one(cache):
    small, large = (open_digits(DigitsSource(part="train", images=count)) for count in (4, 9))
    beginning = large.subset(range(4))
    assert np.array_equal(small.boxes, beginning.boxes)
    assert np.array_equal(small.ids, beginning.ids)
    for index in range(4):
        assert small.path(index).read_bytes() == large.path(index).read_bytes()


def test_open_digits__is_made_once_and_says_how_far_it_is(cache):
    calls: list[tuple[int, int]] = []
    source = DigitsSource(part="val", images=3)
    open_digits(source, lambda done, total: calls.append((done, total)))
    open_digits(source, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_open_digits__every_setting_has_a_folder_of_its_own():
    sources = [
        DigitsSource(part="train"),
        DigitsSource(part="val"),
        DigitsSource(part="train", images=3),
        DigitsSource(part="train", side=128),
        DigitsSource(part="train", seed=1),
        DigitsSource(part="train", level="hard"),
    ]
    assert len({folder_name(source) for source in sources}) == 6


def test_open_digits__an_interrupted_set_leaves_nothing(cache):
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    source = DigitsSource(part="val", images=3)
    with pytest.raises(KeyboardInterrupt):
        open_digits(source, interrupt)
    assert list(cache.iterdir()) == []
    assert len(open_digits(source)) == 3


def make_and_count(images: int) -> int:
    return len(open_digits(DigitsSource(part="val", images=images)).boxes)


def test_open_digits__two_processes_at_once_do_not_collide(cache):
    with ProcessPoolExecutor(2) as pool:
        counts = list(pool.map(make_and_count, [40, 40]))
    assert counts[0] == counts[1] > 40
    assert [folder.name for folder in cache.iterdir()] == [folder_name(DigitsSource(part="val", images=40))]


def test_open_digits__the_files_are_ordinary_coco(cache):
    source = DigitsSource(part="val", images=2)
    open_digits(source)
    folder = cache / folder_name(source)
    document = json.loads((folder / "annotations.json").read_text())
    assert [image["id"] for image in document["images"]] == [1, 2]
    assert min(annotation["id"] for annotation in document["annotations"]) == 1
    with Image.open(folder / "images" / document["images"][0]["file_name"]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (96, 96))


def test_open_digits__a_damaged_cache_says_what_to_delete(cache):
    source = DigitsSource(part="val", images=2)
    open_digits(source)
    (cache / folder_name(source) / "images" / "000001.png").unlink()
    with pytest.raises(DataError, match=r"image files that do not exist, of 2.*delete it: it is made again"):
        open_digits(source)


def test_open_digits__a_cache_that_cannot_be_written_names_the_variable(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match="SSODKIT_CACHE"):
        open_digits(DigitsSource(part="val", images=2))


def test_cache_folder__is_in_the_home_folder_by_default(monkeypatch):
    monkeypatch.delenv("SSODKIT_CACHE", raising=False)
    assert cache_folder() == Path.home() / ".cache" / "ssodkit"
