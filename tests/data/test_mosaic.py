"""Mosaics: their pixels and boxes drawn once more by hand, and what they depend on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ssodkit.data.annotations import ImageSet
from ssodkit.data.batch_plan import derive_batch
from ssodkit.data.config import BatchConfig, CocoSource, DataConfig
from ssodkit.data.loader import training_batches
from ssodkit.data.mosaic import MosaicConfig, Mosaics, mosaic_batch, mosaic_targets
from ssodkit.data.pictures import Pictures
from ssodkit.data.sets import DataSets, open_data
from ssodkit.data.views import ViewsConfig
from ssodkit.errors import DataError

SIZES = [(40, 60), (60, 40), (50, 50), (90, 30), (24, 30), (31, 47), (70, 64)]
KEYS = [1000 + number for number in range(40)]
BATCH = BatchConfig(labeled=4)


@pytest.fixture
def sets(tmp_path) -> DataSets:
    """Seven labeled images of smooth noise; image i has i % 3 boxes, one of them a crowd."""
    random = np.random.RandomState(0)
    images, annotations = [], []
    for place, (height, width) in enumerate(SIZES):
        coarse = Image.fromarray(random.randint(0, 255, (7, 7, 3)).astype(np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / f"{place}.png")
        images.append({"id": place + 1, "file_name": f"{place}.png", "height": height, "width": width})
        annotations += [
            {
                "id": 10 * place + number + 1,
                "image_id": place + 1,
                "category_id": 1 + number,
                "bbox": [3 + 5 * number, 4, 12, 15],
                "iscrowd": int(place == 5 and number == 1),
            }
            for number in range(place % 3)
        ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    source = CocoSource(annotations=file, images=tmp_path)
    return open_data(DataConfig(train=source, test=source, batch=BATCH, unlabeled=None))


def views(**mosaic) -> ViewsConfig:
    return ViewsConfig.model_validate({"labeled": {"seen": []}, "labeled_mosaic": mosaic or None})


def lay(config: MosaicConfig, images: ImageSet, own: list[int], keys: list[int], visible: float = 0.0):
    pictures = Pictures(images)
    found = [(place, pictures.read(place)) for place in own]
    return mosaic_batch(config, images, found, keys, visible, lambda place, instead: (place, pictures.read(place)))


def by_hand(
    images: ImageSet, four: list[int], center: tuple[int, int], side: int, fill: int
) -> tuple[torch.Tensor, list[list[float]]]:
    """A canvas (3, height, width) cut from a larger one, images resized by torch, and the boxes that have an area."""
    wide, boxes = torch.full((3, 4 * side, 4 * side), float(fill)), []
    for place, (is_right, is_low) in zip(four, [(0, 0), (1, 0), (0, 1), (1, 1)], strict=True):
        height, width = images.sizes[place].tolist()
        ratio = side / max(height, width)
        new = max(1, int(height * ratio + 0.5)), max(1, int(width * ratio + 0.5))
        pixels = torch.from_numpy(np.array(Image.open(images.path(place)))).permute(2, 0, 1)[None].float()
        tile = interpolate(pixels, new, mode="bilinear", antialias=True, align_corners=False)[0]
        left, top = center[0] - (not is_right) * new[1], center[1] - (not is_low) * new[0]
        wide[:, side + top : side + top + new[0], side + left : side + left + new[1]] = tile
        for x1, y1, x2, y2 in images.boxes[images.offsets[place] : images.offsets[place + 1]].tolist():
            across, along = new[1] / width, new[0] / height
            moved = x1 * across + left, y1 * along + top, x2 * across + left, y2 * along + top
            x1, y1, x2, y2 = (min(max(edge, 0.0), 2.0 * side) for edge in moved)
            boxes += [[x1, y1, x2, y2]] if x2 > x1 and y2 > y1 else []
    return wide[:, side : 3 * side, side : 3 * side], boxes


def test_mosaic__pixels_and_boxes_are_those_of_four_images_laid_by_hand(sets):
    config, images = MosaicConfig(side=32, fill=99), sets.labeled
    own = [row % len(images) for row in range(12)]
    drawn = config.draw(torch.tensor(KEYS[:12]), len(images))
    raw = lay(config, images, own, KEYS[:12])
    assert raw.sizes.tolist() == [[64, 64]] * 12
    assert raw.image_ids.tolist() == images.ids[own].tolist()
    counts = images.boxes_per_image()
    lost = 0
    for row, place in enumerate(own):
        four = [place, *drawn.partners[row].tolist()]
        canvas, boxes = by_hand(images, four, tuple(drawn.centers[row].tolist()), 32, 99)
        assert (raw.pixels[row].float() - canvas).abs().max() <= 1.0
        lost += counts[four].sum() - len(boxes)
        torch.testing.assert_close(raw.targets.boxes[row][raw.targets.valid[row]], torch.tensor(boxes).view(-1, 4))
    assert lost > 0
    assert raw.targets.valid.shape[1] == raw.targets.valid.sum(dim=1).max()


def test_mosaic__labels_weights_and_crowds_travel_with_their_boxes(sets):
    drawn = Mosaics(32, torch.tensor([True]), torch.tensor([[5, 0, 1]]), torch.tensor([[32, 32]]))
    sizes = torch.tensor([SIZES[place] for place in (2, 5, 0, 1)])[None]
    targets = mosaic_targets(sets.labeled, torch.tensor([[2, 5, 0, 1]]), sizes, drawn, 0.0)
    assert targets.labels.tolist() == [[0, 1, 0, 1, 0]]  # of 2, of 5, none of 0, of 1
    assert targets.crowd.tolist() == [[False, False, False, True, False]]
    assert targets.weight.tolist() == [[1.0, 1.0, 1.0, 0.0, 1.0]]
    assert not targets.all_teach
    without = mosaic_targets(sets.labeled, torch.tensor([[2, 2, 0, 1]]), sizes, drawn, 0.0)
    assert without.all_teach
    # The first fills its quarter of the canvas: 50 x 50 became 32 x 32.
    assert targets.boxes[0, 0].tolist() == pytest.approx([3 * 0.64, 4 * 0.64, 15 * 0.64, 19 * 0.64])


def test_mosaic__a_box_of_which_too_little_is_on_the_canvas_is_dropped(sets):
    """The image of 50 x 50 keeps its size; its corner lies at (-10, -5), so that its boxes lose columns and a row."""
    images = sets.labeled
    place = torch.tensor([[2, 0, 0, 0]])
    drawn = Mosaics(50, torch.tensor([True]), place[:, 1:], torch.tensor([[40, 45]]))
    sizes = torch.tensor([SIZES[number] for number in (2, 0, 0, 0)])[None]
    # Of the boxes (3, 4, 15, 19) and (8, 4, 20, 19), 5 and 10 of 12 columns stay, and 14 of 15 rows.
    kept = {
        visible: mosaic_targets(images, place, sizes, drawn, visible).boxes.tolist() for visible in (0.38, 0.39, 0.78)
    }
    assert kept[0.38] == [[[0.0, 0.0, 5.0, 14.0], [0.0, 0.0, 10.0, 14.0]]]
    assert kept[0.39] == [[[0.0, 0.0, 10.0, 14.0]]]
    assert kept[0.78] == [[]]


def test_mosaic__centers_and_partners_are_drawn_evenly():
    drawn = MosaicConfig(side=5).draw(torch.arange(6000), 7)
    assert drawn.happens.all()
    assert set(drawn.centers.flatten().tolist()) == {2, 3, 4, 5, 6, 7, 8}
    assert abs(drawn.centers.double().mean(dim=0) - 5.0).max() < 0.1
    assert drawn.partners.flatten().bincount(minlength=7).tolist() == pytest.approx([18_000 / 7] * 7, rel=0.06)
    assert torch.corrcoef(torch.cat([drawn.centers, drawn.partners], 1).double().T).fill_diagonal_(0).abs().max() < 0.05


def test_mosaic__happens_as_often_as_said_and_other_images_are_as_they_are(sets):
    config, images = MosaicConfig(side=32, probability=0.4), sets.labeled
    own = [row % len(images) for row in range(len(KEYS))]
    raw, alone = lay(config, images, own, KEYS), Pictures(images).batch(own, KEYS)
    laid = (raw.sizes == 64).all(dim=1)
    assert 8 < laid.sum() < 24
    for row in (~laid).nonzero()[:, 0].tolist():
        assert torch.equal(raw.sizes[row], alone.sizes[row])
        height, width = raw.sizes[row].tolist()
        assert torch.equal(raw.pixels[row, :, :height, :width], alone.pixels[row, :, :height, :width])
        ours, theirs = raw.targets[row : row + 1], alone.targets[row : row + 1]
        assert torch.equal(ours.boxes[ours.valid], theirs.boxes[theirs.valid])


def test_mosaic__of_no_images_is_nothing_and_of_one_it_is_that_image_four_times(sets):
    config, only = MosaicConfig(side=50), sets.labeled.subset([2])
    assert lay(config, only, [], []).pixels.shape == (0, 3, 0, 0)
    raw = lay(config, only, [0], [5])
    canvas, boxes = by_hand(only, [0] * 4, tuple(config.draw(torch.tensor([5]), 1).centers[0].tolist()), 50, 114)
    assert torch.equal(raw.pixels[0].float(), canvas)  # at its own size
    assert raw.targets.boxes[0].tolist() == boxes


def rows_of(batches) -> list[tuple]:
    """For each step what its images are: ids, pixels and boxes."""
    streams = [part.labeled for (part,) in batches]
    return [
        (each.views["seen"].image_ids.tolist(), each.views["seen"].pixels.tolist(), each.targets["seen"].boxes.tolist())
        for each in streams
    ]


def test_training_batches__mosaics_do_not_depend_on_workers_or_where_a_run_begins(sets):
    plan, seen = derive_batch(BATCH), views(side=32)
    straight = rows_of(training_batches(sets, seen, plan, 5, range(5)))
    assert rows_of(training_batches(sets, seen, plan, 5, range(2, 5), workers=2)) == straight[2:]
    assert rows_of(training_batches(sets, seen, plan, 6, range(1))) != straight[:1]
    ranks = [rows_of(training_batches(sets, seen, derive_batch(BATCH, 2), 5, range(5), rank)) for rank in range(2)]
    assert [first[1] + second[1] for first, second in zip(*ranks, strict=True)] == [pixels for _, pixels, _ in straight]


def test_training_batches__a_mosaic_that_never_happens_changes_nothing(sets):
    plan = derive_batch(BATCH)
    never, none = (
        rows_of(training_batches(sets, each, plan, 5, range(3))) for each in (views(side=32, probability=0.0), views())
    )
    assert never == none


def test_training_batches__a_broken_partner_is_named_or_another_takes_its_place(sets, monkeypatch):
    monkeypatch.setattr("ssodkit.data.pictures.KEPT", 0)
    plan, seen = derive_batch(BATCH), views(side=32)
    whole = rows_of(training_batches(sets, seen, plan, 5, range(6)))
    broken = sets.labeled.path(3)
    broken.write_bytes(b"")
    with pytest.raises(DataError, match=f"the image {broken} cannot be read"):
        list(training_batches(sets, seen, plan, 5, range(6)))
    told = []
    mended = rows_of(training_batches(sets, seen, plan, 5, range(6), on_skipped=told.append))
    assert {(each.key, each.image_id) for each in told} == {("train", 4)}
    assert len(told) > sum(ids.count(4) for ids, _, _ in whole)  # not as the own image of a mosaic alone
    is_same = [before == after for (_, before, _), (_, after, _) in zip(whole, mended, strict=True)]
    assert not all(is_same)
    assert rows_of(training_batches(sets, seen, plan, 5, range(3, 6), workers=2, on_skipped=told.append)) == mended[3:]
