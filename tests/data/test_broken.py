from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from ssodkit.data.broken import leave_out, look_into, refuse_many, sizes_of
from ssodkit.data.config import BrokenRule, DataConfig, RestSource
from ssodkit.data.sets import DataSets, open_data
from ssodkit.errors import DataError


@pytest.fixture
def config(write_coco):
    """Makes a data config over 20 training and 6 test images."""
    sources = {"train": write_coco("train", 20), "test": write_coco("test", 6, first_id=101, seed=1)}

    def make(**options: Any) -> DataConfig:
        defaults = {"percent": 20.0, "folds": "soft_teacher", "batch": {"labeled": 2, "unlabeled": 2}}
        return DataConfig(**{**sources, **defaults, **options})

    return make


def look(sets: DataSets, *on_progress: Any) -> None:
    refuse_many(look_into(sets, *on_progress), sizes_of(sets), BrokenRule())


def test_look_into__lists_all_labeled_and_test_images_that_cannot_be_used(config, tmp_path):
    look(open_data(config(percent=100.0, unlabeled=None, batch={"labeled": 2})))
    (tmp_path / "test" / "003.png").write_bytes(b"")
    Image.new("RGB", (60, 41)).save(tmp_path / "test" / "000.jpg")
    with pytest.raises(DataError) as caught:
        look(open_data(config()))
    first, *lines = str(caught.value).splitlines()
    assert first == "data.test: 2 of 6 images cannot be used:"
    assert "000.jpg is 41 x 60 pixels" in lines[0]
    assert "003.png cannot be read" in lines[1]
    assert len(lines) == 2


def test_look_into__looks_at_unlabeled_images_too(config):
    sets = open_data(config())
    for index in range(len(sets.unlabeled)):
        sets.unlabeled.path(index).write_text("<html>404</html>")
    with pytest.raises(
        DataError, match=r"^data\.unlabeled: 16 of 16 images cannot be used:(\n  .*){10}\n  and 6 more$"
    ):
        look(sets)


def test_look_into__the_broken_ones_of_all_sets_are_shown_at_once(config, tmp_path):
    sets = open_data(config())
    for path in (sets.labeled.path(0), sets.unlabeled.path(3), sets.test.path(2)):
        path.write_bytes(path.read_bytes()[:-40])
    done: list[tuple[int, int]] = []
    with pytest.raises(DataError) as caught:
        look(sets, lambda *progress: done.append(progress))
    lines = str(caught.value).splitlines()
    assert lines[::2] == [
        "data.train: 1 of 4 images cannot be used:",
        "data.unlabeled: 1 of 16 images cannot be used:",
        "data.test: 1 of 6 images cannot be used:",
    ]
    assert done == [(image, 26) for image in range(1, 27)]


def test_leave_out__takes_images_from_every_set_and_says_so(config):
    sets = open_data(config(unlabeled=RestSource(include_labeled=True)))
    for path in (sets.labeled.path(0), sets.test.path(2)):
        path.write_bytes(b"")
    broken = look_into(sets)
    assert {key: list(problems) for key, problems in broken.items()} == {
        "train": [sets.labeled.ids[0]],
        "unlabeled": [sets.labeled.ids[0]],
        "test": [103],
    }
    left = leave_out(sets, broken)
    assert (len(left.labeled), len(left.unlabeled), len(left.test)) == (3, 19, 5)
    assert left.hidden.ids.tolist() == left.unlabeled.ids.tolist()
    assert left.labeled_too.tolist() == left.labeled.ids.tolist()
    assert left.fold == sets.fold
    assert look_into(left) == {}
    notes = left.notes[len(sets.notes) :]
    assert [note.splitlines()[0] for note in notes] == [
        "data.train: 1 of 4 images cannot be used and are left out:",
        "data.unlabeled: 1 of 20 images cannot be used and are left out:",
        "data.test: 1 of 6 images cannot be used and are left out:",
    ]
    assert str(sets.test.path(2)) in notes[2]
    assert sizes_of(left, broken) == sizes_of(sets)


def test_leave_out__a_set_of_broken_images_alone_is_refused(config):
    sets = open_data(config())
    for place in range(len(sets.labeled)):
        sets.labeled.path(place).unlink()
    with pytest.raises(DataError, match=r"^data\.train: 4 of 4 images cannot be used"):
        leave_out(sets, look_into(sets))


@pytest.mark.parametrize(
    ("rule", "passes"),
    [
        (BrokenRule(), False),
        (BrokenRule(skip=True, at_most=2), True),
        (BrokenRule(skip=True, at_most=1), False),
        (BrokenRule(skip=True, at_most=0.1), True),  # of 20 images
        (BrokenRule(skip=True, at_most=0.09), False),
        (BrokenRule(skip=True, at_most=0), False),
    ],
)
def test_refuse_many__up_to_the_number_or_share_that_is_allowed(rule, passes):
    broken = {"train": {3: "the image a is broken."}, "unlabeled": {4: "the image b is broken."}}
    sizes = {"train": 5, "unlabeled": 11, "test": 4}
    if passes:
        refuse_many(broken, sizes, rule)
        return
    with pytest.raises(DataError) as caught:
        refuse_many(broken, sizes, rule)
    lines = str(caught.value).splitlines()
    assert lines[:2] == ["data.train: 1 of 5 images cannot be used:", "  the image a is broken."]
    allowed = f"These are 2 of 20 images, and data.broken.at_most allows to skip {rule.allowed(20)}."
    assert lines[4:] == ([allowed] if rule.skip else [])


def test_broken_rule__a_number_of_images_is_whole():
    with pytest.raises(ValidationError, match=r"1\.5 is neither"):
        BrokenRule(at_most=1.5)
