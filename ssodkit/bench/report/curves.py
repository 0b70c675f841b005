"""Which figures a report has, and what each of them draws of a run."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ssodkit.bench.report.figures import DASHES, Curve, Figure, Trace, by_run, line, make_figure, not_shown, text
from ssodkit.bench.report.read import GALLERIES, Record, RunRecord
from ssodkit.engine.tables import best_first

METRICS = ("AP", "AP50", "AP75", "AP_voc07", "AP50_voc07", "AP50_voc10", "AR_100")
COLORS = 8
"""In the page's palettes."""

Fate = tuple[str, bool]
"""Of a found box: the verdict on its class, and whether it teaches its place."""


def learning_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Scores of both networks."""
    thresholds = " or ".join(sorted({record.threshold for record in records}))
    lines = {}
    for kind in ("test", "validation"):
        for metric in METRICS:
            suffix = "" if kind == "test" else ", validation images"
            lines[metric + suffix] = partial(scores, metric=metric, kind=kind)
    return [
        by_run(
            "learning",
            "Average precision",
            f"In percent, of detections with a score above {thresholds}. Solid: teacher, or a run's only network; "
            "dashed: student; gray: supervised baseline. Where a row has several runs, its line is their mean, "
            "and they are faint.",
            records,
            lines,
            "there has been no evaluation yet",
            y="percent",
        )
    ]


def class_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """What each class scores in the end."""
    variants = [
        (f"{record.name}, step {record.per_class[0]}", _by_class(record.per_class[1]))
        for record in records
        if record.per_class is not None
    ]
    caption = (
        "In percent, of the network that is the run's result, on the test images, which have as many true boxes of a "
        "class as stand behind its name. The best class first."
    )
    shown = {record.name for record in records if record.per_class is not None}
    absent = "no evaluation on test images in a run folder of this version"
    return [Figure("classes", "AP of each class", caption, tuple(variants), not_shown(records, shown, absent))]


def _by_class(classes: Record) -> dict[str, Any]:
    ordered = best_first(classes)
    names = [text(f"{name} ({own['boxes']})") for name, own in ordered]
    figure = make_figure(
        (
            {
                "type": "scatter",
                "mode": "markers",
                "name": metric,
                "x": names,
                "y": [None if own[metric] is None else 100 * own[metric] for _, own in ordered],
                "hovertemplate": f"%{{x}}: {metric} %{{y:.1f}}<extra></extra>",
                "marker": {"size": 8, "symbol": symbol},
                "meta": {"color": color, "title": metric},
            }
            for metric, symbol, color in (("AP", "circle", "color 0"), ("AP50", "circle-open", "color 1"))
        ),
        x="class",
        y="percent",
        range=[0, 102],
    )
    figure["layout"]["xaxis"]["type"] = "category"
    return figure


def scores(record: RunRecord, metric: str, kind: str = "test") -> Mapping[str, Curve]:
    """Network -> learning curve in percent; the teacher first."""
    curves: dict[str, dict[int, float | None]] = {}
    for evaluation in record.evaluations:
        networks = evaluation["thresholds"].get(record.threshold, {}) if evaluation["set"] == kind else {}
        for network in sorted(networks, reverse=True):
            value = networks[network].get(metric)
            if value is not None:
                curves.setdefault(network, {})[evaluation["step"]] = 100 * value
    return curves


def health_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """How right and how many the pseudo-labels are."""
    hidden = "nothing is pseudo-labeled in training there, or nobody knows the hidden labels"
    figures = [
        by_run(
            name,
            f"Pseudo-label {name}",
            f"{sentence} Right is a box with an IoU of 0.5 or more with a true one of its class.",
            records,
            {"": partial(_of_health, key=name)},
            hidden,
            range=[0, 1.02],
        )
        for name, sentence in (
            ("precision", "Share of the pseudo-boxes that are right."),
            ("recall", "Share of the true boxes that a pseudo-box is right about."),
        )
    ]
    count = by_run(
        "count",
        "Pseudo-boxes per image",
        "Dotted: what labeled images have.",
        records,
        {"": partial(_of_health, key="boxes_per_image")},
        "nothing is pseudo-labeled in training there",
        extra=_labeled_boxes,
        rangemode="tozero",
    )
    return [*figures, count]


def of_lines(lines: Sequence[Record], *keys: str) -> Mapping[str, Curve]:
    """The curve of one number that the lines of a log have."""
    curve: dict[int, float | None] = {}
    for each in lines:
        value: Any = each
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        curve[each["step"]] = value
    return {"": curve}


def _of_health(record: RunRecord, key: str) -> Mapping[str, Curve]:
    return of_lines(record.health, key)


def _labeled_boxes(records: Sequence[RunRecord]) -> list[Trace]:
    last = max(record.health[-1]["step"] for record in records)
    counts = sorted({round(record.health[-1]["labeled_boxes_per_image"], 3) for record in records})
    return [
        line("labeled images", {0: count, last: count}, "neutral 0", dash="dot", entry=place == 0)
        for place, count in enumerate(counts)
    ]


def threshold_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """What each class has to score, where the selector adapts it."""
    variants = []
    for record in records:
        classes = dict.fromkeys(name for each in record.health for name in _thresholds(each))
        if not classes:
            continue
        curves = {
            f"class {name}": {each["step"]: _thresholds(each).get(name) for each in record.health} for name in classes
        }
        variants.append((record.name, make_figure(_told_apart(curves), y="score", rangemode="tozero")))
    return [
        Figure(
            "thresholds",
            "Threshold of each class",
            "Mean over the teacher's detections of a class; as Figure 6 of Consistent-Teacher.",
            tuple(variants),
            not_shown(records, {name for name, _ in variants}, "no selector with thresholds of its own for each class"),
        )
    ]


def _told_apart(curves: Mapping[str, Curve]) -> list[Trace]:
    """A line of its own color and dash for each curve; with a legend where that can be read."""
    return [
        line(
            name,
            curve,
            f"color {place % COLORS}",
            dash=DASHES[place // COLORS % len(DASHES)],
            entry=len(curves) <= 20,
        )
        for place, (name, curve) in enumerate(curves.items())
    ]


def _thresholds(health: Record) -> Mapping[str, float | None]:
    return ((health.get("numbers") or {}).get("threshold") or {}).get("per_class") or {}


def reliability_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Each score of the teacher's boxes against their true IoU, at the last moment of the gallery."""
    seen = [(record, *found_boxes(record.moments[-1])) for record in records if record.moments]
    names = list(dict.fromkeys(name for _, found, _, _ in seen for name in found))
    shown = {record.name for record, found, _, _ in seen if found}
    why = f"no gallery with pseudo-boxes and hidden labels, or not among the first {GALLERIES} runs"
    note = not_shown(records, shown, why)
    figures = []
    for name in names:
        variants = [
            (f"{record.name}, step {record.moments[-1]['step']}", _reliability(found[name], ious, fates, name))
            for record, found, ious, fates in seen
            if any(value is not None for value in found.get(name, ()))
        ]
        if variants:
            caption = (
                "Each point is a box that the teacher found in the images of the gallery. IoU is with the true box, of "
                "any class, that it overlaps most. The line joins means of equally many boxes. As Figure 3 of Soft "
                "Teacher."
            )
            figures.append(Figure(f"reliability-{name}", f"{_titled(name)} and IoU", caption, tuple(variants), note))
    return figures or [Figure("reliability", "Score and IoU", "", (), note)]


def found_boxes(moment: Record) -> tuple[dict[str, list[float | None]], list[float], list[Fate]]:
    """Of all boxes found in images with known labels: scores by name, IoUs, and what became of them."""
    scores: dict[str, list[float | None]] = {}
    ious: list[float] = []
    fates: list[Fate] = []
    for image in moment["images"]:
        if image["found"] is not None and "iou" in image["found"]:
            for name, values in image["found"]["scores"].items():
                scores.setdefault(name, []).extend(values)
            ious += image["found"]["iou"]
            verdicts = image["found"]["verdict"]
            places = image["found"].get("places", [verdict == "taught" for verdict in verdicts])
            fates += zip(verdicts, places, strict=True)
    return scores, ious, fates


def _reliability(scores: list[float | None], ious: list[float], fates: list[Fate], name: str) -> dict[str, Any]:
    """Confidence is colored by what teaches classes, any other score by what teaches places."""
    points = [each for each in zip(scores, ious, fates, strict=True) if each[0] is not None]
    traces: list[Trace] = []
    what = "its class" if name == "confidence" else "its place"
    for title, color, symbol, is_taught in (
        (f"does not teach {what}", "color 1", "circle-open", False),
        (f"teaches {what}", "color 2", "circle", True),
    ):
        chosen = [
            each for each in points if (each[2][0] == "taught" if name == "confidence" else each[2][1]) == is_taught
        ]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": title,
                "x": [score for score, _, _ in chosen],
                "y": [iou for _, iou, _ in chosen],
                "text": [text(verdict) for _, _, (verdict, _) in chosen],
                "hovertemplate": f"{text(name)} %{{x}}, IoU %{{y}}: %{{text}}<extra></extra>",
                "marker": {"size": 6, "symbol": symbol, "opacity": 0.7},
                "meta": {"color": color, "title": title},
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "mean IoU",
            **_binned([(score, iou) for score, iou, _ in points if score is not None]),
            "hovertemplate": "mean IoU %{y:.3f}<extra></extra>",
            "line": {"width": 2},
            "meta": {"color": "neutral 0", "title": "mean IoU"},
        }
    )
    return make_figure(traces, x=_titled(name), y="IoU", range=[-0.03, 1.03])


def _binned(points: list[tuple[float, float]], bins: int = 8) -> dict[str, list[float]]:
    """Means of equally many points, in the order of their x."""
    parts = np.array_split(np.array(sorted(points)).reshape(-1, 2), min(bins, len(points)))
    means = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2).round(4)
    return {"x": means[:, 0].tolist(), "y": means[:, 1].tolist()}


def _titled(name: str) -> str:
    return {"confidence": "Confidence", "box_jitter": "Box jitter"}.get(name, text(name))


def loss_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """The sum for all runs, and the terms of each."""
    total = by_run(
        "loss",
        "Loss",
        "The weighted sum of all terms, which differ between methods.",
        records,
        {"": partial(_of_steps, key="loss")},
        "no log of their steps is left",
        rangemode="tozero",
    )
    variants = []
    for record in records:
        names = dict.fromkeys(name for step in record.steps for name in step["losses"])
        curves = {name: of_lines(record.steps, "losses", name)[""] for name in names}
        if curves:
            variants.append((record.name, make_figure(_told_apart(curves), rangemode="tozero")))
    caption = "What is in the sum: each with its weight."
    return [total, Figure("terms", "Loss by term", caption, tuple(variants), total.note)]


def pace_figures(records: Sequence[RunRecord]) -> list[Figure]:
    """Learning rate, gradients, speed and memory."""
    why = "no log of their steps is left"
    return [
        by_run(key, title, caption, records, {"": partial(_of_steps, key=key)}, why, rangemode="tozero")
        for key, title, caption in (
            ("lr", "Learning rate", ""),
            ("gradient_norm", "Gradient norm", "Before clipping, mean between two log lines."),
            ("images_per_second", "Images per second", "Labeled and unlabeled, evaluations left out."),
            ("memory_gb", "Peak memory in GB", "Of tensors on a GPU; of the process on a CPU."),
        )
    ]


def _of_steps(record: RunRecord, key: str) -> Mapping[str, Curve]:
    return of_lines(record.steps, key)
