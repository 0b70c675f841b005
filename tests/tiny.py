"""Tiny detectors and batches for them, as plain values and functions: what fixtures and scripts share."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ssodkit.ops.random import make_key
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
TINY_FCOS = {
    **{key: TINY_RETINANET[key] for key in ("backbone", "neck")},
    "type": "fcos",
    "head": {"type": "distances", "layers": 2, "groups": 2},
    "stages": {
        "dense": {
            "matcher": {"type": "points", "ranges": [20.0, 40.0], "radius": 1.5},
            "terms": {
                "class": {"taught_by": "classes", "criterion": {"type": "focal"}, "normalizer": "positives"},
                "box": {
                    "taught_by": "boxes",
                    "criterion": {"type": "giou"},
                    "quality": "weight",
                    "normalizer": "quality",
                    "floor": 1e-6,
                },
                "centerness": {"taught_by": "boxes", "criterion": {"type": "quality"}, "normalizer": "positives"},
            },
        }
    },
    "test": {"score": 0.05, "nms": 0.5, "rank": {"class": 1.0, "quality": 1.0}, "at_most": 12, "per_level": 40},
}
UNSURE_TERM = {"taught_by": "boxes", "criterion": {"type": "gaussian"}, "normalizer": "positives", "weight": 0.05}
TINY_UNSURE_FCOS = {
    **TINY_FCOS,
    "head": {**TINY_FCOS["head"], "activation": "bins", "uncertainty": True},
    "stages": {
        "dense": {
            "matcher": {"type": "points", "ranges": [20.0, 40.0], "radius": None},
            "terms": {**TINY_FCOS["stages"]["dense"]["terms"], "uncertainty": UNSURE_TERM},
        }
    },
}
"""Unbiased Teacher v2's dense detector."""
TINY_UNSURE_FASTER_RCNN = {
    **TINY_FASTER_RCNN,
    "roi": {
        **TINY_FASTER_RCNN["roi"],
        "boxes_per_class": False,
        "code": {"form": "sides", "center_std": 0.1, "widened": 1.0},
        "uncertainty": True,
    },
    "stages": {
        **TINY_STAGES,
        "roi": {**TINY_STAGES["roi"], "terms": {**TINY_STAGES["roi"]["terms"], "uncertainty": UNSURE_TERM}},
    },
}
"""And its detector of regions."""
TINY_OBJECTNESS = {
    **{key: TINY_RETINANET[key] for key in ("backbone", "neck")},
    "type": "dense_objectness",
    "anchors": [[[16.0, 24.0]], [[24.0, 36.0]], [[36.0, 54.0]]],
    "head": {"type": "objectness", "layers": 2, "groups": 2},
    "stages": {
        "dense": {
            "matcher": {"type": "shapes", "ratio": 2.0},
            "terms": {
                "class": {
                    "taught_by": "classes",
                    "criterion": {"type": "binary", "background": False},
                    "normalizer": {"type": "level_means", "per_class": True},
                },
                "box": {"taught_by": "boxes", "criterion": {"type": "ciou"}, "normalizer": "positives", "weight": 2.0},
                "objectness": {
                    "taught_by": "objectness",
                    "criterion": {"type": "objectness"},
                    "normalizer": "positives",
                },
            },
        }
    },
    "test": {
        "score": 0.01,
        "nms": 0.5,
        "rank": {"class": 1.0, "objectness": 1.0},
        "score_of": "rank",
        "at_most": 12,
        "per_level": 40,
    },
}
QUERY_TERMS = {
    "class": {"taught_by": "classes", "criterion": {"type": "focal"}, "normalizer": "positives"},
    "l1": {"taught_by": "boxes", "criterion": {"type": "l1"}, "normalizer": "positives", "weight": 5.0},
    "giou": {"taught_by": "boxes", "criterion": {"type": "giou"}, "normalizer": "positives", "weight": 2.0},
}
TINY_DINO = {
    "type": "dino",
    "backbone": TINY_RETINANET["backbone"],
    "neck": {"channels": 16, "extra_levels": 1, "groups": 4},
    "transformer": {"heads": 2, "points": 2, "encoder_layers": 1, "decoder_layers": 2, "width": 32},
    "queries": 20,
    "denoising": {"queries": 6},
    "stages": {
        "encoder": {"matcher": {"type": "hungarian"}, "terms": QUERY_TERMS},
        "denoising": {"matcher": None, "terms": QUERY_TERMS},
        "decoder": {"matcher": {"type": "hungarian"}, "terms": QUERY_TERMS},
    },
    "test": {"score": 0.0, "nms": None, "at_most": 12, "per_level": 40},
}
TINY_FIVE_POINTS = {
    **{key: TINY_RETINANET[key] for key in ("backbone", "neck", "anchors")},
    "type": "five_points",
    "width": 64,
    "stages": {
        "dense": {
            "matcher": {**TINY_RETINANET["stages"]["dense"]["matcher"], "negative": 0.5},
            "terms": {
                **TINY_RETINANET["stages"]["dense"]["terms"],
                "quality": {
                    "taught_by": "boxes",
                    "criterion": {"type": "quality", "of": "iou"},
                    "normalizer": "positives",
                },
            },
        }
    },
    "test": {**TINY_RETINANET["test"], "score": 0.01, "rank": {"class": 1.0, "quality": 1.0}},
}
"""The detector of docs/add_a_detector.md, where a test has loaded it."""
TINY_DETECTORS = {
    "faster_rcnn": TINY_FASTER_RCNN,
    "retinanet": TINY_RETINANET,
    "fcos": TINY_FCOS,
    "dense_objectness": TINY_OBJECTNESS,
    "dino": TINY_DINO,
    "five_points": TINY_FIVE_POINTS,
}


def make_view(name: str, ids: list[int], side: int = 64) -> View:
    """A square view of noise; rows depend on their image and the view's name alone."""
    keys = [make_key(name, image) for image in ids]
    pixels = [torch.randint(0, 256, (3, side, side), generator=torch.Generator().manual_seed(key)) for key in keys]
    return View(
        pixels=torch.stack(pixels).to(torch.uint8),
        sizes=torch.full((len(ids), 2), side),
        homography=torch.eye(3).repeat(len(ids), 1, 1),
        image_ids=torch.tensor(ids),
        keys=torch.tensor(keys),
    )


def make_targets(images: list[list[tuple[float, ...]]]) -> Targets:
    """Per image a list of (left, top, right, bottom, label) -> padded targets of weight 1."""
    length = max((len(rows) for rows in images), default=0)
    targets = Targets.empty(len(images), length=length)
    for place, rows in enumerate(images):
        for row, (*box, label) in enumerate(rows):
            targets.boxes[place, row] = torch.tensor(box)
            targets.labels[place, row] = int(label)
            targets.valid[place, row] = True
            targets.weight[place, row] = 1.0
    return replace(targets, all_teach=True)


def make_semi_batch(views: Sequence[str] = ()) -> SemiBatch:
    """Two labeled images, of 2 and 1 boxes, and two unlabeled ones in `weak`, `strong` and these `views`,
    mirrored in all but `weak`."""
    targets = make_targets([[(4, 4, 28, 40, 0), (30, 20, 56, 50, 2)], [(10, 8, 34, 44, 1)]])
    unlabeled = {name: make_view(name, [7, 8]) for name in ("weak", "strong", *views)}
    mirror = torch.tensor([[-1.0, 0.0, 64.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    for name, view in unlabeled.items():
        if name != "weak":
            view.homography.copy_(mirror)
    return SemiBatch(
        labeled=Stream({"labeled": make_view("labeled", [1, 2])}, {"labeled": targets}),
        unlabeled=Stream(unlabeled, dict.fromkeys(unlabeled, Targets.empty(2))),
    )


def with_stored_labels(batch: SemiBatch) -> SemiBatch:
    """The same images; the unlabeled ones have the labels of the labeled ones in their strong view."""
    assert batch.unlabeled is not None
    targets = {**batch.unlabeled.targets, "strong": batch.labeled.targets["labeled"]}
    return SemiBatch(batch.labeled, Stream(batch.unlabeled.views, targets))
