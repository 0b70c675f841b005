import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from ssodkit.data.annotations import Category, make_image_set
from ssodkit.data.sets import open_data
from ssodkit.engine.checkpoint import read_run
from ssodkit.engine.distributed import Processes
from ssodkit.engine.evaluate import as_result, detect, evaluate, evaluating, score_networks
from ssodkit.engine.train import train
from ssodkit.engine.trained import load
from ssodkit.methods.base import build_student
from ssodkit.structures.geometry import Stream
from ssodkit.structures.views import View

SIDE = 64


def image_set(count):
    sizes = [(SIDE, SIDE)] * count
    names = [f"{place}.png" for place in range(count)]
    return make_image_set(
        Path(), names, range(1, count + 1), sizes, [Category(5, "cat"), Category(9, "dog"), Category(2, "cow")]
    )


@pytest.fixture
def detector(tiny_context):
    """With class logits far enough apart that some scores are high."""
    network = build_student(tiny_context())
    torch.manual_seed(1)
    nn.init.normal_(network.roi.classify.weight, std=0.5)
    return network


def rows(table):
    columns = (table.image_ids, table.labels, table.scores, *table.boxes.T)
    return sorted(zip(*(np.asarray(column).tolist() for column in columns), strict=True))


def test_detect__of_several_thresholds_finds_what_each_alone_does(detector, make_view):
    views = [Stream({"test": make_view("test", [1, 2, 3])}, {}), Stream({"test": make_view("test", [4])}, {})]
    together = detect({"student": detector}, views, image_set(4), [0.001, 0.9], "fp32")["student"]
    for threshold, found in zip((0.001, 0.9), together, strict=True):
        (alone,) = detect({"student": detector}, views, image_set(4), [threshold], "fp32")["student"]
        assert rows(found) == rows(alone)
    low, high = together
    assert 0 < len(high.scores) < len(low.scores)
    assert [row for row in rows(low) if row[2] > np.float32(0.9)] == rows(high)


def test_detect__answers_in_pixels_of_the_original_images(detector, make_view):
    view = make_view("test", [1, 2])
    plain = detect({"a": detector}, [Stream({"test": view}, {})], image_set(2), [0.05], "fp32")["a"][0]
    # As if the view had been made by halving images of 128 x 128 pixels, and mirroring them.
    mirrored = View(
        view.pixels,
        view.sizes,
        torch.tensor([[-0.5, 0, 64], [0, 0.5, 0], [0, 0, 1]]).repeat(2, 1, 1),
        view.image_ids,
        view.keys,
    )
    large = make_image_set(Path(), ["a", "b"], [1, 2], [(128, 128)] * 2, image_set(1).categories)
    carried = detect({"a": detector}, [Stream({"test": mirrored}, {})], large, [0.05], "fp32")["a"][0]
    left, top, right, bottom = plain.boxes.T
    expected = np.stack([128 - 2 * right, 2 * top, 128 - 2 * left, 2 * bottom], axis=1)
    np.testing.assert_allclose(carried.boxes, expected, atol=1e-3)
    assert len(carried.scores) > 0


def test_detect__without_images_finds_nothing(detector):
    (found,) = detect({"student": detector}, [], image_set(0), [0.05], "fp32")["student"]
    assert len(found.scores) == 0


def test_evaluating__every_module_is_afterwards_as_it_was():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())
    network[0].eval()
    with evaluating([network]):
        assert not any(module.training for module in network.modules())
    assert [module.training for module in network.modules()] == [True, False, True]


def test_score_networks__names_every_network_at_every_threshold(tiny_recipe):
    from ssodkit.data.sets import open_data
    from ssodkit.engine.build import build_method

    recipe = tiny_recipe("evaluation.metric=voc", "evaluation.thresholds=[0.05, 0.001, 0.5]")
    sets = open_data(recipe.data)
    networks = build_method(recipe, len(sets.categories)).networks()
    scored = score_networks(networks, sets.test, recipe, Processes(torch.device("cpu")))
    scores = scored.thresholds
    assert {threshold: set(by_network) for threshold, by_network in scores.items()} == {
        threshold: {"student", "teacher"} for threshold in ("0.05", "0.001", "0.5")
    }
    assert {"AP", "AP50_voc07", "AP50_voc10"} <= set(scores["0.5"]["teacher"])
    result = as_result(scored, recipe)
    assert result["teacher"] == scores["0.05"]["teacher"]
    assert set(result["per_class"]) == {"student", "teacher"}
    assert list(result["per_class"]["teacher"]) == [category.name for category in sets.categories]
    boxes = [scores["boxes"] for scores in result["per_class"]["teacher"].values()]
    assert boxes == np.bincount(sets.test.labels, minlength=10).tolist()


@pytest.fixture(scope="module")
def other(tiny_run, tmp_path_factory):
    """The test images of a run as somebody else's COCO file: other ids of classes, in another order."""
    folder, test = tmp_path_factory.mktemp("other"), open_data(read_run(tiny_run)[0].data).test
    names = [category.name for category in test.categories][::-1]
    owners = np.repeat(np.arange(len(test)), test.boxes_per_image())
    content = {
        "categories": [{"id": 50 + place, "name": name} for place, name in enumerate(names)],
        "images": [
            {"id": place, "file_name": str(test.path(place)), "height": int(height), "width": int(width)}
            for place, (height, width) in enumerate(test.sizes)
        ],
        "annotations": [
            {
                "id": row,
                "image_id": int(owner),
                "category_id": 50 + names.index(test.categories[label].name),
                "bbox": [*box[:2], box[2] - box[0], box[3] - box[1]],
                "area": float((box[2] - box[0]) * (box[3] - box[1])),
                "iscrowd": 0,
            }
            for row, (owner, label, box) in enumerate(zip(owners, test.labels, test.boxes.tolist(), strict=True), 1)
        ],
    }
    return folder, content


def test_evaluate__other_data_joined_by_names_scores_as_the_same_images_of_the_run(tiny_run, other, capsys):
    folder, content = other
    (folder / "labels.json").write_text(json.dumps(content))
    assert evaluate(tiny_run, data=folder / "labels.json", images=folder) == evaluate(tiny_run)
    shown = capsys.readouterr().out
    assert f"10 images of {folder}/labels.json" in shown
    assert shown.count("teacher by class, in percent") == 2


def test_evaluate__every_checkpoint_is_tested_by_the_rule_of_its_step(tiny_recipe, tmp_path):
    changes = ("engine.steps=3", "detector.test.nms_until=2", "engine.checkpoint={every: 1, keep: 3}")
    unsure = ("engine.lr=0.0", "detector.head.prior=0.4", "evaluation.thresholds=[0.3]")
    recipe = tiny_recipe(*changes, *unsure, "watch.gallery.moments=3", name="supervised_retinanet")
    run = train(recipe, tmp_path / "run").run
    seen = [json.loads(line)["images"][0] for line in (run / "gallery" / "moments.jsonl").read_text().splitlines()]
    checkpoints = [run / "checkpoints" / name for name in ("step_00000001", "step_00000002", "last")]
    for checkpoint, shown, nms in zip(checkpoints, seen, (recipe.detector.test.nms, None, None), strict=True):
        assert read_run(checkpoint)[0].detector.test.nms == nms
        assert overlaps(shown["detections"]["student"]) == (nms is None)  # as the run itself tested
        found = load(checkpoint)(run / "gallery" / f"{shown['id']}.png")
        assert overlaps({"boxes": found.boxes.tolist(), "labels": found.labels.tolist()}) == (nms is None)
    assert read_run(run)[0].detector.test.nms is None
    assert evaluate(run)["student"] == json.loads((run / "result.json").read_text())["student"]


def overlaps(found) -> bool:
    """Whether boxes of one class do so by more than the embedded data's rule lets them."""
    boxes, labels = torch.tensor(found["boxes"]).view(-1, 4), torch.tensor(found["labels"])
    same = (labels[:, None] == labels) & ~torch.eye(len(labels), dtype=torch.bool)
    return bool((box_iou(boxes, boxes) * same > 0.55).any())


def test_evaluate__classes_that_the_run_does_not_know_are_left_out_with_a_note(tiny_run, other, call):
    folder, content = other
    first = content["categories"][0]
    renamed = {**content, "categories": [{**first, "name": "zebra"}, *content["categories"][1:]]}
    (folder / "renamed.json").write_text(json.dumps(renamed))
    ended = call("eval", tiny_run, "--data", folder / "renamed.json", "--images", folder)
    assert ended.code == 0
    assert "has boxes of classes that the run does not know, which are left out: zebra" in ended.out
    unknown = {**content, "categories": [{**each, "name": f"x{each['id']}"} for each in content["categories"]]}
    (folder / "unknown.json").write_text(json.dumps(unknown))
    ended = call("eval", tiny_run, "--data", folder / "unknown.json", "--images", folder)
    assert ended.code == 2
    assert "alone, and the run knows" in ended.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--data", "gone.json"], "does not exist"),
        (["--images", "."], "--images says where the images of --data are: give both"),
    ],
)
def test_evaluate__what_cannot_be_scored_is_a_sentence(tiny_run, call, arguments, complaint):
    ended = call("eval", tiny_run, *arguments)
    assert ended.code == 2
    assert complaint in ended.err
