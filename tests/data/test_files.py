import pytest

from ssodkit.data.files import write_whole


def test_write_whole__replaces_what_was_there(tmp_path):
    for text in ("one", "two\n"):
        write_whole(tmp_path / "a.txt", text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "two\n"}


def test_write_whole__where_the_disk_is_full_the_old_one_stays_and_no_half(tmp_path, file_limit):
    write_whole(tmp_path / "a.txt", "one")
    with file_limit(100), pytest.raises(OSError, match="File too large") as caught:
        write_whole(tmp_path / "a.txt", "two" * 100)
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "one"}
