from dataclasses import replace

import pytest

from ssodkit.bench.report.curves import (
    class_figures,
    health_figures,
    learning_figures,
    loss_figures,
    pace_figures,
    reliability_figures,
    scores,
    threshold_figures,
)
from ssodkit.bench.report.figures import POINTS, line, looks, mean_curve, thin
from ssodkit.bench.report.read import read_run, with_moments


@pytest.fixture
def record(watched_run):
    """The run, with its gallery."""
    return with_moments(read_run(watched_run, "mine"), at_most=16)


def traces_of(figure, variant=0):
    return {(trace["name"], trace["line"]["dash"]): trace for trace in figure.variants[variant][1]["data"]}


def test_scores__in_percent_by_network_the_teacher_first(record):
    curves = scores(record, "AP50")
    assert list(curves) == ["teacher", "student"]
    for network, curve in curves.items():
        assert curve == {
            evaluation["step"]: 100 * evaluation["thresholds"][record.threshold][network]["AP50"]
            for evaluation in record.evaluations
        }
    assert scores(record, "AP50", "validation") == {}


def test_learning_figures__of_a_run_the_teacher_solid_and_the_student_dashed(record):
    (figure,) = learning_figures([record])
    assert [label for label, _ in figure.variants] == ["AP", "AP50", "AP75", "AR_100"]
    traces = traces_of(figure, 1)
    assert set(traces) == {("mine", "solid"), ("mine", "dash")}
    for network, dash in (("teacher", "solid"), ("student", "dash")):
        assert (
            dict(zip(traces["mine", dash]["x"], traces["mine", dash]["y"], strict=True))
            == (scores(record, "AP50")[network])
        )


def test_by_run__of_several_folds_the_mean_and_the_folds_faint(record):
    """Two finished folds of one row, and one that has only begun, which is not in the mean."""
    steps = tuple({**step, "loss": 2.0} for step in record.steps)
    folds = [
        replace(record, name="fold 1", row="row", steps=steps),
        replace(record, name="fold 2", row="row", steps=tuple({**step, "loss": 4.0} for step in steps)),
        replace(record, name="fold 3", row="row", steps=({**steps[0], "loss": 9.0},), is_finished=False),
    ]
    total = loss_figures(folds)[0].variants[0][1]["data"]
    assert [(trace["opacity"], trace["showlegend"]) for trace in total] == [(0.5, False)] * 3 + [(1.0, True)]
    assert [list(trace["y"]) for trace in total] == [[2.0] * 4, [4.0] * 4, [9.0], [3.0] * 4]
    assert "mean of 2 runs" in total[3]["hovertemplate"]


def test_by_run__panels_are_variants_and_a_row_keeps_its_color(record):
    one = replace(record, name="one", row="a", panel="1 %", is_baseline=True)
    two = replace(record, name="two", row="b", panel="1 %")
    three = replace(record, name="three", row="b", panel="5 %")
    figure = pace_figures([one, two, three])[0]
    assert [label for label, _ in figure.variants] == ["1 %", "5 %"]
    colors = [[trace["meta"]["color"] for trace in content["data"]] for _, content in figure.variants]
    assert colors == [["neutral 0", "color 0"], ["color 0"]]
    assert looks([one, two, three])["b"].color == "color 0"


def test_class_figures__the_best_class_first_with_its_boxes_of_the_last_test(record):
    classes = {
        "[b]": {"boxes": 2, "AP": 0.25, "AP50": 0.5},
        "none": {"boxes": 0, "AP": None, "AP50": None},
        "<b>": {"boxes": 7, "AP": 0.5, "AP50": 1.0},
    }
    last = {**record.evaluations[-1], "result": "student", "per_class": {"student": classes, "teacher": {}}}
    other = {**last, "step": 5, "set": "validation"}
    run = replace(record, evaluations=(*record.evaluations, last, other))
    old = tuple({name: each[name] for name in ("step", "set", "thresholds")} for each in record.evaluations)
    (figure,) = class_figures([run, replace(record, name="old", row="old", evaluations=old)])
    ((label, content),) = figure.variants
    assert label == "mine, step 4"
    assert content["layout"]["xaxis"]["type"] == "category"
    assert [(trace["name"], list(trace["x"]), list(trace["y"])) for trace in content["data"]] == [
        (metric, ["&lt;b&gt; (7)", "[b] (2)", "none (0)"], values)
        for metric, values in (("AP", [50.0, 25.0, None]), ("AP50", [100.0, 50.0, None]))
    ]
    assert figure.note == "Not shown: old (no evaluation on test images in a run folder of this version)."


def test_class_figures__of_a_run_have_the_numbers_of_its_result(record):
    (figure,) = class_figures([record])
    ((_, content),) = figure.variants
    own = record.result["per_class"][record.result["result"]]
    assert sorted(content["data"][0]["x"]) == sorted(f"{name} ({scores['boxes']})" for name, scores in own.items())


def test_health_figures__have_the_numbers_of_the_log(record):
    precision, recall, count = health_figures([record])
    for figure, key in ((precision, "precision"), (recall, "recall"), (count, "boxes_per_image")):
        trace = traces_of(figure)["mine", "solid"]
        assert list(trace["x"]) == [line["step"] for line in record.health]
        assert list(trace["y"]) == [line[key] for line in record.health]
    reference = traces_of(count)["labeled images", "dot"]
    assert set(reference["y"]) == {round(record.health[-1]["labeled_boxes_per_image"], 3)}


def test_threshold_figures__a_line_for_each_class(record):
    health = tuple(
        {"step": step, "numbers": {"threshold": {"per_class": {"cat": value, "dog": None}}}}
        for step, value in ((1, 0.2), (2, 0.4))
    )
    (figure,) = threshold_figures([record, replace(record, name="adaptive", health=health)])
    ((label, content),) = figure.variants
    assert label == "adaptive"
    assert [(trace["name"], list(trace["y"])) for trace in content["data"]] == [
        ("class cat", [0.2, 0.4]),
        ("class dog", [None, None]),
    ]


def test_reliability_figures__every_found_box_is_a_point_colored_by_what_its_score_decides(record):
    figures = {figure.key: figure for figure in reliability_figures([record])}
    assert set(figures) == {"reliability-confidence", "reliability-box_jitter"}
    for name in ("confidence", "box_jitter"):
        expected = [
            (score, iou, verdict == "taught" if name == "confidence" else place)
            for found in (image["found"] for image in record.moments[-1]["images"])
            for score, iou, verdict, place in zip(
                found["scores"][name], found["iou"], found["verdict"], found["places"], strict=True
            )
            if score is not None
        ]
        ((label, content),) = figures[f"reliability-{name}"].variants
        assert label == "mine, step 4"
        others, taught, mean = content["data"]
        drawn = [(*point, False) for point in zip(others["x"], others["y"], strict=True)]
        drawn += [(*point, True) for point in zip(taught["x"], taught["y"], strict=True)]
        assert sorted(drawn) == sorted(expected)
        assert len(expected) > 0
        assert min(mean["y"]) >= 0.0


def test_figures__without_anything_say_why(record):
    bare = replace(record, steps=(), health=(), evaluations=(), moments=())
    figures = [
        *learning_figures([bare]),
        *class_figures([bare]),
        *health_figures([bare]),
        *threshold_figures([bare]),
        *reliability_figures([bare]),
        *loss_figures([bare]),
        *pace_figures([bare]),
    ]
    assert len(figures) == 13
    for figure in figures:
        assert figure.variants == ()
        assert figure.note.startswith("Nothing to show: ")


def test_figures__a_run_that_has_nothing_is_named_beside_one_that_has(record):
    bare = replace(record, name="bare", row="bare", health=())
    precision = health_figures([record, bare])[0]
    assert precision.note == (
        "Not shown: bare (nothing is pseudo-labeled in training there, or nobody knows the hidden labels)."
    )


def test_figures__of_each_score_and_class_name_the_runs_that_have_none(record):
    bare = replace(record, name="bare", row="bare", health=(), moments=())
    reason = "no gallery with pseudo-boxes and hidden labels, or not among the first 8 runs"
    assert {figure.note for figure in reliability_figures([record, bare])} == {f"Not shown: bare ({reason})."}
    (thresholds,) = threshold_figures([bare])
    assert thresholds.note == "Nothing to show: no selector with thresholds of its own for each class."


def test_mean_curve__only_where_all_have_a_value():
    assert mean_curve([{1: 2.0, 2: None, 3: 4.0}, {1: 4.0, 2: 1.0}]) == {1: 3.0}


def test_thin__means_of_equal_pieces():
    steps, values = thin({step: float(step) for step in range(1, 2 * POINTS + 1)})
    assert len(steps) == POINTS
    assert (steps[0], values[0]) == (2, 1.5)
    assert (steps[-1], values[-1]) == (2 * POINTS, 2 * POINTS - 0.5)
    assert thin({}) == ([], [])


def test_line__a_name_is_text_to_plotly():
    trace = line("<b>%{x}</b>&", {1: 1.0}, "color 0")
    assert trace["name"] == "&lt;b&gt;%&#123;x}&lt;/b&gt;&amp;"
    assert trace["hovertemplate"].startswith(trace["name"])
    assert trace["meta"]["title"] == "<b>%{x}</b>&"
