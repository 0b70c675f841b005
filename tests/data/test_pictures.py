import numpy as np
import pytest
from PIL import Image

from ssodkit.data.coco import read_coco
from ssodkit.data.decode import decode_image
from ssodkit.data.folder import read_folder
from ssodkit.data.pictures import Pictures, find_broken, known_sizes, list_broken, measured
from ssodkit.errors import DataError


@pytest.fixture
def images(write_coco):
    source = write_coco("train", 5)
    return read_coco(source.annotations, source.images)


@pytest.mark.parametrize("keep", [True, False])
def test_pictures__are_what_is_decoded(images, keep):
    pictures = Pictures(images, keep)
    for index in (4, 0, 1):
        assert np.array_equal(pictures.read(index), decode_image(images.path(index)))


def test_pictures__of_small_sets_are_read_once(images):
    kept, not_kept = Pictures(images), Pictures(images, keep=False)
    pixels = decode_image(images.path(0))
    images.path(0).unlink()
    assert np.array_equal(kept.read(0), pixels)
    with pytest.raises(DataError, match="does not exist"):
        not_kept.read(0)


def test_pictures__broken_files_of_small_sets_are_found_at_once(images):
    images.path(2).write_bytes(images.path(2).read_bytes()[:300])
    with pytest.raises(DataError, match=r"002\.jpg cannot be read"):
        Pictures(images)


def test_pictures__another_size_than_annotated_is_refused(images):
    Image.new("RGB", (33, 22)).save(images.path(1))
    with pytest.raises(DataError, match=r"001\.png is 22 x 33 .* says 60 x 40"):
        Pictures(images)


def test_pictures__a_batch_holds_pixels_labels_and_keys(images):
    raw = Pictures(images).batch([2, 0], [11, 12])
    assert raw.image_ids.tolist() == [3, 1]
    assert raw.keys.tolist() == [11, 12]
    assert raw.sizes.tolist() == [[50, 50], [40, 60]]
    assert raw.targets.boxes[0].tolist() == [[0, 3, 12, 15], [5, 3, 17, 15]]
    assert raw.targets.valid.tolist() == [[True, True], [False, False]]


def test_known_sizes__come_from_the_files_where_nobody_annotated_them(images):
    folder = read_folder(images.root)
    assert folder.sizes.max() == 0
    assert known_sizes(folder).tolist() == images.sizes.tolist()
    assert known_sizes(images).tolist() == images.sizes.tolist()


def test_measured__tells_how_far_it_is(images):
    done: list[tuple[int, int]] = []
    folder = read_folder(images.root)
    assert measured(folder, lambda *progress: done.append(progress)).sizes.tolist() == images.sizes.tolist()
    assert done == [(number, 10) for number in range(1, 11)]


def test_pictures__without_annotated_size_are_decoded_when_asked_for(images):
    folder = read_folder(images.root)
    assert np.array_equal(Pictures(folder).read(3), decode_image(images.path(3)))


def test_pictures__of_no_images_are_none(images):
    assert Pictures(images.subset([])).batch([], []).pixels.shape == (0, 3, 0, 0)


def test_find_broken__finds_what_only_decoding_tells_of_small_sets(images, monkeypatch):
    for index in (1, 3):
        content = images.path(index).read_bytes()
        images.path(index).write_bytes(content[:400] + bytes(300) + content[700:])  # header and end are whole
    broken = find_broken(images)
    assert list(broken) == [1, 3]
    assert list_broken(broken.values(), 5).startswith("2 of 5 images cannot be used:\n  the image ")
    patient = Pictures(images, patient=True)
    assert np.array_equal(patient.read(2), decode_image(images.path(2)))
    with pytest.raises(DataError, match=r"001\.png cannot be read"):
        patient.read(1)
    monkeypatch.setattr("ssodkit.data.pictures.KEPT", 0)
    assert find_broken(images) == {}
    with pytest.raises(DataError, match=r"003\.png cannot be read"):
        Pictures(images).batch([2, 3], [1, 2])
