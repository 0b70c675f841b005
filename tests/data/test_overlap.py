from ssodkit.data.folder import read_folder
from ssodkit.data.overlap import HEAD, shared_files


def test_shared_files__are_found_by_content(tmp_path):
    contents = {
        "a/one.png": b"same" * 2000,
        "a/two.png": b"x" * HEAD + b"1",
        "a/three.png": b"short",
        "b/four.png": b"same" * 2000,
        "b/five.png": b"x" * HEAD + b"2",
        "b/six.png": b"trohs",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pairs = shared_files(read_folder(tmp_path / "a"), read_folder(tmp_path / "b"))
    assert pairs == [(tmp_path / "a" / "one.png", tmp_path / "b" / "four.png")]


def test_shared_files__of_nothing_are_none(tmp_path):
    (tmp_path / "one.png").write_bytes(b"")
    images = read_folder(tmp_path)
    assert shared_files(images.subset([]), images) == []


def test_shared_files__of_many_twins_are_found_without_comparing_each_pair(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(300):
            (tmp_path / name / f"{number}.png").write_bytes(b"black" * 1000)
    pairs = shared_files(read_folder(tmp_path / "a"), read_folder(tmp_path / "b"))
    assert len(pairs) == len({first for first, _ in pairs}) == 300
