"""Tiny things that several folders test with: detectors of a few thousand weights, and views for them."""

import resource
from collections import Counter
from contextlib import ExitStack, contextmanager

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ssodkit.ops.random import make_key
from ssodkit.plugins import BuildContext, load_plugins
from ssodkit.structures.geometry import SemiBatch, Stream
from ssodkit.structures.teaching import Targets
from ssodkit.structures.views import View

TINY_STAGES = {
    "rpn": {
        "matcher": {"type": "max_iou", "positive": 0.6, "negative": 0.3, "best_from": 0.2},
        "sampler": {"per_image": 32, "positive_share": 0.5},
        "one_class": True,
        "terms": {
            "class": {"taught_by": "objectness", "criterion": {"type": "binary"}, "normalizer": "sampled"},
            "box": {"taught_by": "objectness", "criterion": {"type": "l1"}, "normalizer": "sampled"},
        },
    },
    "roi": {
        "matcher": {"type": "max_iou", "positive": 0.5, "negative": 0.5, "best_from": None},
        "sampler": {"per_image": 16, "positive_share": 0.5},
        "terms": {
            "class": {"taught_by": "classes", "criterion": {"type": "softmax"}, "normalizer": "weights"},
            "box": {"taught_by": "boxes", "criterion": {"type": "l1"}, "normalizer": "sampled"},
        },
    },
}
TINY_FASTER_RCNN = {
    "type": "faster_rcnn",
    "backbone": {"type": "small", "stem": 8, "channels": [8, 16], "group": 8},
    "neck": {"channels": 8, "extra_levels": 0},
    "anchors": {"sides": [[20.0], [30.0]], "ratios": [1.5]},
    "proposals": {"training": {"per_level": 50, "keep": 24}, "test": {"per_level": 40, "keep": 20}},
    "roi": {"cells": 3, "samples": 1, "levels": 2, "finest_side": 20.0, "width": 16},
    "stages": TINY_STAGES,
    "test": {"score": 0.05, "nms": 0.5, "at_most": 12},
}
TINY_RETINANET = {
    "type": "retinanet",
    "backbone": {"type": "small", "stem": 8, "channels": [8, 16], "group": 8},
    "neck": {"channels": 8, "extra_levels": 1, "extra_from": "output"},
    "anchors": {"sides": [[20.0], [30.0], [44.0]], "ratios": [1.5], "center": 0.5},
    "head": {"type": "plain", "layers": 2, "groups": 2},
    "stages": {
        "dense": {
            "matcher": {"type": "max_iou", "positive": 0.5, "negative": 0.4, "best_from": 0.2},
            "terms": {
                "class": {"taught_by": "classes", "criterion": {"type": "focal"}, "normalizer": "positives_per_image"},
                "box": {"taught_by": "boxes", "criterion": {"type": "giou"}, "normalizer": "positives", "weight": 2.0},
            },
        }
    },
    "test": {"score": 0.05, "nms": 0.5, "at_most": 12, "per_level": 40},
}
TINY_DETECTORS = {"faster_rcnn": TINY_FASTER_RCNN, "retinanet": TINY_RETINANET}


class _Operators(TorchDispatchMode):
    """Counts operators whose answer, or its size, the host waits for on a GPU."""

    waiting = frozenset({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output})
    untagged = frozenset({"torchvision::nms", "aten::_linalg_check_errors"})

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        indices = args[1] if name in ("aten::index", "aten::index_put", "aten::index_put_") else None
        masks = [index for index in indices or () if index is not None and index.dtype in (torch.bool, torch.uint8)]
        if masks or name in self.untagged or (indices is None and self.waiting & set(func.tags)):
            self.asked[name] += 1
        return func(*args, **(kwargs or {}))


class _Readings(TorchFunctionMode):
    """Counts what is read from or made of whole lists, which reaches no operator on the CPU."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.tensor):
            self.asked[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def host_questions():
    """A context that yields a Counter of operations at which the host would wait for a GPU, filled inside it."""

    @contextmanager
    def count():
        asked = Counter()
        with ExitStack() as stack:
            stack.enter_context(_Operators(asked))
            stack.enter_context(_Readings(asked))
            yield asked

    return count


class _LargestTensor(TorchDispatchMode):
    """Records the most bytes that any operation's answer has."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)]
        self.bytes = max(self.bytes, *sizes, 0)
        return answer


@pytest.fixture
def largest_tensor():
    """A context that yields an object whose `bytes` are those of the largest tensor made inside it."""
    return _LargestTensor


@pytest.fixture
def tiny_context():
    """num_classes, fields of a detector (replacing those of the tiny one of its type) -> a build context."""
    load_plugins()
    from ssodkit.detectors.base import DetectorConfig
    from ssodkit.plugins import members

    def make(num_classes: int = 3, type: str = "faster_rcnn", **fields) -> BuildContext:
        detector = members(DetectorConfig.slot)[type].model_validate({**TINY_DETECTORS[type], **fields})
        torch.manual_seed(0)
        return BuildContext(num_classes=num_classes, detector=detector, load_weights=False)

    return make


@pytest.fixture
def make_view():
    """name, image ids -> a view of 64 x 64 noise; rows depend on their image and the view's name alone."""

    def make(name: str, ids: list[int], side: int = 64) -> View:
        keys = [make_key(name, image) for image in ids]
        pixels = [torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(key)) for key in keys]
        return View(
            pixels=torch.stack(pixels).to(torch.uint8),
            sizes=torch.full((len(ids), 2), side),
            homography=torch.eye(3).repeat(len(ids), 1, 1),
            image_ids=torch.tensor(ids),
            keys=torch.tensor(keys),
        )

    return make


@pytest.fixture
def make_targets():
    """Per image a list of (left, top, right, bottom, label) -> padded targets of weight 1."""

    def make(images: list[list[tuple[float, ...]]]) -> Targets:
        length = max((len(rows) for rows in images), default=0)
        targets = Targets.empty(len(images), length=length)
        for place, rows in enumerate(images):
            for row, (*box, label) in enumerate(rows):
                targets.boxes[place, row] = torch.tensor(box)
                targets.labels[place, row] = int(label)
                targets.valid[place, row] = True
                targets.weight[place, row] = 1.0
        return targets

    return make


@pytest.fixture
def semi_batch(make_view, make_targets):
    """Two labeled images, of 2 and 1 boxes, and two unlabeled ones, mirrored in their strong view."""
    targets = make_targets([[(4, 4, 28, 40, 0), (30, 20, 56, 50, 2)], [(10, 8, 34, 44, 1)]])
    weak, strong = make_view("weak", [7, 8]), make_view("strong", [7, 8])
    mirror = torch.tensor([[-1.0, 0.0, 64.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    strong.homography.copy_(mirror)
    nothing = Targets.empty(2)
    return SemiBatch(
        labeled=Stream({"labeled": make_view("labeled", [1, 2])}, {"labeled": targets}),
        unlabeled=Stream({"weak": weak, "strong": strong}, {"weak": nothing, "strong": nothing}),
    )


@pytest.fixture
def file_limit():
    """Bytes -> a context in which longer files cannot be written, as if the disk were full."""

    @contextmanager
    def limit(size: int):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit
