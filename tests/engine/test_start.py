"""`detector.weights`: what networks begin with, by a name of torchvision's, from a file and from a run."""

import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model
from torchvision_pair import spread_layer, spread_norms

from ssodkit.detectors.torchvision_weights import weights_of
from ssodkit.engine.build import build_method
from ssodkit.engine.checkpoint import read_categories, read_own_run
from ssodkit.engine.export import export
from ssodkit.engine.start import find_start, read_source
from ssodkit.engine.train import resume, train
from ssodkit.engine.trained import load
from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from ssodkit.structures.views import View

NAME = "fasterrcnn_resnet50_fpn"
FOUR = ("a", "b", "c", "d")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The empty folder in which torch keeps what it has fetched; no host is within reach."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("ssodkit.detectors.weight_files.is_within_reach", lambda url: False)
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


@pytest.fixture
def coco_weights(hub):
    """torchvision's network of COCO's classes with random weights that torch keeps as if they were those of COCO."""
    network = make_theirs(91)
    network.backbone.body.layer2[0].bn1.running_var.fill_(1e-5)  # as much as an epsilon adds
    path = hub / weights_of(NAME).url.rpartition("/")[2]
    torch.save(network.state_dict(), path)
    return path


def make_theirs(classes, **changes):
    """Random weights under which a network finds something everywhere."""
    torch.manual_seed(0)
    network = get_model(NAME, weights=None, weights_backbone=None, num_classes=classes, **changes)
    spread_norms(network)
    predictor = network.roi_heads.box_predictor
    for layer, std in (
        (network.rpn.head.cls_logits, 0.2),
        (network.rpn.head.bbox_pred, 0.03),
        (network.roi_heads.box_head.fc6, 0.03),
        (predictor.cls_score, 0.1),
        (predictor.bbox_pred, 0.05),
    ):
        spread_layer(layer, std)
    return network.eval()


def assert_says(text, sentence):
    """Wherever a terminal has broken its lines."""
    assert re.search(sentence, " ".join(text.split())), text


@pytest.fixture
def torchvision_recipe(tmp_path):
    """(weights, method) -> a recipe with torchvision's Faster R-CNN; its backbone would be fetched."""

    def make(weights, method="supervised"):
        path = tmp_path / "own.yaml"
        path.write_text(
            f"extends: [{method}, bases/detectors/faster_rcnn_torchvision]\ndetector:\n  weights: {weights}\n"
        )
        return path

    return make


def test_find_start__a_file_of_torchvisions_finds_what_torchvision_finds(tmp_path, torchvision_recipe):
    theirs = make_theirs(5, min_size=128, max_size=128)
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    recipe = load_recipe(torchvision_recipe(tmp_path / "own.pth", "mean_teacher"))
    start = find_start(recipe.detector, FOUR)
    assert start.describe() == f"of {tmp_path / 'own.pth'}, whose 4 classes are taken in the order of these"
    networks = build_method(recipe, 4, start=start).networks()
    pixels = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    view = View(pixels, torch.full((2, 2), 128), torch.eye(3).repeat(2, 1, 1), torch.arange(2), torch.arange(2))
    assert list(networks) == ["student", "teacher"]
    with torch.no_grad():
        expected = theirs(list(pixels / 255))
        for network in networks.values():
            network.eval()
            found = network.detect(network.predict(network.extract(view)))
            for row, their in enumerate(expected):
                valid = found.valid[row]
                assert valid.sum() == len(their["boxes"]) > 20
                assert found.labels[row][valid].tolist() == (their["labels"] - 1).tolist()
                torch.testing.assert_close(found.boxes[row][valid], their["boxes"], rtol=0.0, atol=1e-3)
                torch.testing.assert_close(found.confidence[row][valid], their["scores"], rtol=0.0, atol=1e-4)


def test_find_start__by_its_name_it_computes_what_torchvision_makes_of_it(coco_weights, torchvision_recipe):
    theirs = get_model(NAME, weights="COCO_V1").eval()  # from the same file; it sets its batch-norms' epsilon to 0
    recipe = load_recipe(torchvision_recipe("FasterRCNN_ResNet50_FPN_Weights.COCO_V1"))
    start = find_start(recipe.detector, ("Car", "pallet", "person"))
    assert start.describe() == f"of torchvision's {NAME}; new is what says pallet"
    network = build_method(recipe, 3, start=start).networks()["student"].eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, expected = network.neck(network.backbone(images)), theirs.backbone(images).values()
    for level, their_level in zip(ours, expected, strict=True):
        torch.testing.assert_close(level, their_level, rtol=1e-4, atol=1e-4)
    predictor = theirs.roi_heads.box_predictor  # person is COCO's number 1, car 3; the background 0
    assert torch.equal(network.roi.classify.weight[[2, 0, 3]], predictor.cls_score.weight[[1, 3, 0]])
    assert torch.equal(network.roi.regress.bias.view(-1, 4)[[2, 0]], predictor.bbox_pred.bias.view(-1, 4)[[1, 3]])
    assert network.roi.classify.weight[1].std() < 0.02  # pallet is new
    assert read_source(coco_weights).tensors["backbone.network.bn1.weight"].equal(network.backbone.network.bn1.weight)


def test_find_start__what_cannot_be_fetched_says_what_else_would_do(hub, torchvision_recipe):
    recipe = load_recipe(torchvision_recipe(NAME))
    sentence = (
        rf"detector.weights: the weights of torchvision's {NAME} cannot be fetched \(there is no network, .*\)\. "
    )
    with pytest.raises(RecipeError, match=sentence + "Run once online, .* fetch https.*pth and name the file here"):
        find_start(recipe.detector, FOUR)


def test_find_start__a_run_a_checkpoint_and_a_file_of_it_are_the_same_weights(tiny_run, tiny_recipe, tmp_path):
    recipe, checkpoint = read_own_run(tiny_run)
    export(tiny_run, tmp_path / "mine.safetensors", "safetensors")
    names = tuple(category.name for category in read_categories(checkpoint))
    trained = load(tiny_run).network.state_dict()
    for weights in (tiny_run, checkpoint, checkpoint / "teacher.safetensors", tmp_path / "mine.safetensors"):
        recipe = tiny_recipe(f"detector.weights={weights}")
        start = find_start(recipe.detector, names)
        assert start.describe().endswith("which knows all classes")
        made = build_method(recipe, len(names), start=start).networks()["student"].state_dict()
        assert all(torch.equal(made[name], trained[name]) for name in trained if not name.startswith("matchers."))


def test_put_into__classes_are_the_same_by_their_names(tiny_run, tiny_recipe):
    recipe = tiny_recipe(f"detector.weights={tiny_run}")
    start = find_start(recipe.detector, ("3", "gear", "1"))
    assert start.describe() == f"of {read_own_run(tiny_run)[1] / 'teacher.safetensors'}; new is what says gear"
    made, trained = build_method(recipe, 3, start=start).networks()["student"].roi, load(tiny_run).network.roi
    assert torch.equal(made.classify.weight[[0, 2, 3]], trained.classify.weight[[3, 1, 10]])
    assert not torch.equal(made.classify.weight[1], trained.classify.weight[2])
    none = find_start(recipe.detector, ("gear",))
    assert none.describe().endswith("which knows none of the classes: what says them is new")
    build_method(recipe, 1, start=none)


def test_session__a_run_needs_its_weights_once(tiny_run, tiny_recipe, tmp_path, capfd):
    weights = tmp_path / "mine.safetensors"
    export(tiny_run, weights, "safetensors")
    recipe = tiny_recipe(f"detector.weights={weights}", "engine.steps=2", "watch.gallery.images=0")
    run = train(recipe, tmp_path / "run", stop_after=1).run
    assert f"weights  of {weights}, which knows all classes" in capfd.readouterr().out
    weights.unlink()
    assert resume(run).scores
    assert load(run).recipe.detector.weights == weights


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"there is no file or run .*weights\.pth, and no network of this name: "),
        (b"no weights", r"weights\.pth cannot be read as weights\. Write them alone, with `torch\.save"),
        ({"model": {}, "epoch": 3}, r"weights\.pth holds more than weights\. Write them alone"),
        (
            {"layer.weight": torch.zeros(1)},
            r"holds weights of no detector that is known\. Name a run, .*fcos_resnet50_fpn",
        ),
    ],
)
def test_run__says_where_weights_are_named_that_cannot_be_read(call, tmp_path, torchvision_recipe, content, sentence):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    ended = call("run", torchvision_recipe(path))
    assert ended.code == 2
    assert not (tmp_path / "runs").exists()
    assert "own.yaml:3:12 detector.weights: " in ended.err
    assert_says(ended.err, sentence)


def test_read_source__a_path_that_no_file_can_have_is_a_sentence(tmp_path):
    with pytest.raises(RecipeError, match="cannot be looked for: File name too long"):
        read_source(tmp_path / ("a" * 300))


def test_run__names_the_preset_that_other_weights_fit(call, tmp_path, torchvision_recipe):
    with torch.device("meta"):
        other = get_model("fcos_resnet50_fpn", weights=None, weights_backbone=None)
    save_file(
        {name: torch.empty_like(tensor, device="cpu") for name, tensor in other.state_dict().items()},
        tmp_path / "other.safetensors",
    )
    fits = r"fits the detector of `bases/detectors/fcos_torchvision\.yaml`, not this one: it lacks neck\.lateral\.3\.w"
    for weights in ("fcos_resnet50_fpn", tmp_path / "other.safetensors"):
        ended = call("run", torchvision_recipe(weights))
        assert ended.code == 2
        assert "own.yaml:3:12 detector.weights: " in ended.err
        assert_says(ended.err, fits)


def test_run__weights_of_our_own_must_be_the_detectors(call, tmp_path, torchvision_recipe, tiny_run):
    ended = call("run", torchvision_recipe(tiny_run))
    assert ended.code == 2
    assert_says(
        ended.err, r"teacher\.safetensors fits the detector of the recipe that it was trained with, not this one"
    )
