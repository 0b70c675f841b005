import io

from rich.console import Console

from ssodkit.engine.tables import COLUMNS, class_table, classes_in_words, score_table


def printed(networks, names):
    scores = {network: dict.fromkeys(names, 0.987) for network in networks}
    result = {"step": 1200, "result": networks[-1], "thresholds": {"0.05": scores, "0.001": scores}}
    text = io.StringIO()
    Console(file=text, width=80).print(score_table(result))
    return text.getvalue().splitlines()


def test_score_table__a_row_for_each_network_and_threshold():
    lines = printed(["student", "teacher"], ["AP", "AP50", "AP75"])
    assert lines[0].rstrip() == "test scores after step 1200, in percent"
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[:3] for row in rows] == [
        ["student", "0.05", "98.7"],
        ["teacher (the result)", "0.05", "98.7"],
        ["student", "0.001", "98.7"],
        ["teacher", "0.001", "98.7"],
    ]


def test_score_table__with_voc_columns_a_row_is_still_a_line_of_80():
    lines = printed(["student", "teacher"], list(COLUMNS))
    assert sum("98.7" in line for line in lines) == 4
    assert any("teacher (the result)" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_class_table__of_the_result_the_best_class_first_and_those_without_a_box_last():
    classes = {
        "cat": {"boxes": 3, "AP": 0.25, "AP50": 0.5},
        "[red]": {"boxes": 0, "AP": None, "AP50": None},
        "dog": {"boxes": 12, "AP": 0.75, "AP50": 1.0},
    }
    text = io.StringIO()
    result = {"result": "teacher", "per_class": {"student": {}, "teacher": classes}}
    Console(file=text, width=80).print(class_table(result))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.getvalue().splitlines() if "│" in line]
    assert rows == [["dog", "12", "75.0", "100.0"], ["cat", "3", "25.0", "50.0"], ["[red]", "0", "-", "-"]]
    assert "teacher by class, in percent " in text.getvalue()


def test_class_table__of_many_classes_the_best_and_the_worst():
    classes = {f"class {place}": {"boxes": 1, "AP": place / 100, "AP50": 0.5} for place in range(33)}
    result = {"result": "teacher", "per_class": {"teacher": classes}}
    text = io.StringIO()
    Console(file=text, width=80).print(class_table(result))
    names = [line.split("│")[1].strip() for line in text.getvalue().splitlines() if "│" in line]
    best, worst = [f"class {place}" for place in range(32, 22, -1)], [f"class {place}" for place in range(9, -1, -1)]
    assert names == [*best, "(13 between them)", *worst]
    assert classes_in_words(result) == ""


def test_classes_in_words__the_best_first():
    classes = {"cat": {"AP": 0.25}, "dog": {"AP": 0.75}, "cow": {"AP": None}}
    told = classes_in_words({"result": "teacher", "per_class": {"teacher": classes}})
    assert told == " (dog 75.0, cat 25.0, cow -)"
