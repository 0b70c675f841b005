import pytest

from ssodkit.data.folder import read_folder
from ssodkit.errors import DataError


def test_read_folder__finds_images_in_subfolders_sorted_by_path(tmp_path):
    for name in ("z.JPG", "a/b/c.png", "a/d.webp", "notes.txt", ".hidden.jpg", ".thumbs/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images = read_folder(tmp_path)
    assert [images.name(index) for index in range(len(images))] == ["a/b/c.png", "a/d.webp", "z.JPG"]
    assert images.ids.tolist() == [1, 2, 3]
    assert images.boxes_per_image().tolist() == [0, 0, 0]


def test_read_folder__a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match="holds no image, nor do its subfolders"):
        read_folder(tmp_path)


def test_read_folder__no_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        read_folder(tmp_path / "absent")
