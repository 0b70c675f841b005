import os

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


def names_in(folder) -> list[str]:
    images = read_folder(folder)
    return [images.name(index) for index in range(len(images))]


def test_read_folder__links_that_lead_back_add_nothing(tmp_path):
    folder = tmp_path / "more"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.png").touch()
    for link in (folder / "loop", folder / "a" / "up", folder / "a" / "again"):
        link.symlink_to(folder)
    assert names_in(folder) == ["a/x.png"]
    (note,) = read_folder(folder).notes
    assert "3 links to folders that are looked into already were not followed: a/again, a/up, loop" in note


def test_read_folder__links_to_other_folders_are_followed_once(tmp_path):
    for name in ("more/b", "else/in"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f"{name[-1]}.png").touch()
    for link in ("more/a", "more/c", "more/b/d"):
        (tmp_path / link).symlink_to(tmp_path / "else")
    (tmp_path / "more" / "z").symlink_to(tmp_path / "more" / "b")
    assert names_in(tmp_path / "more") == ["a/in/n.png", "b/b.png"]


def test_read_folder__a_file_with_several_names_is_noted(tmp_path):
    (tmp_path / "one.png").write_bytes(b"1")
    (tmp_path / "two.png").symlink_to("one.png")
    os.link(tmp_path / "one.png", tmp_path / "three.png")
    assert names_in(tmp_path) == ["one.png", "three.png", "two.png"]
    (note,) = read_folder(tmp_path).notes
    assert "1 files have several names, and are as many images: one.png = three.png = two.png" in note


def test_read_folder__pipes_are_passed_over(tmp_path):
    (tmp_path / "one.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    assert names_in(tmp_path) == ["one.png"]
    assert "1 pipes or devices that are called like images were passed over: pipe.png" in read_folder(tmp_path).notes[0]


def test_read_folder__what_leads_nowhere_or_cannot_be_read_is_refused(tmp_path, monkeypatch):
    (tmp_path / "lost.png").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "shelf").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):  # a path that is too long, as even root can list what nobody may read
        os.mkdir("n" * 250)
        os.chdir("n" * 250)
    with pytest.raises(DataError) as caught:
        read_folder(tmp_path)
    first, unreadable, lost = str(caught.value).splitlines()
    assert first == f"{tmp_path} has 2 kinds of mistakes:"
    assert "what cannot be read: " in unreadable
    assert "(File name too long)" in unreadable
    assert "links that lead nowhere (2 in all): " in lost
    assert "lost.png" in lost
    assert "self.png" in lost
