"""What readers of a table see: rounding, footnotes, heads and escapes, in all four formats."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from ssodkit.bench.formats import FORMATS, to_csv, to_html, to_latex, to_markdown
from ssodkit.bench.published import Published
from ssodkit.bench.suite import cells_of
from ssodkit.bench.table import Table, make_table

MakeTable = Callable[..., Table]
FASTER = "faster_rcnn_r50"
ROWS = [
    {
        "recipe": "supervised",
        "title": "Supervised",
        "published": {"method": "supervised", "detector": FASTER},
    },
    {
        "recipe": "soft_teacher",
        "title": "Soft Teacher",
        "baseline": "supervised",
        "published": {"method": "soft_teacher", "detector": FASTER},
    },
]
PAPER = {"setting": "coco_standard", "percent": 10}
BOTH = {"supervised": [40.0, 42.0], "soft_teacher": [55.0, 53.0]}


def number(method: str, value: float, **changes: Any) -> Published:
    plain = {"method": method, "detector": FASTER, "setting": "coco_standard", "percent": 10, "metric": "AP"}
    return Published.model_validate({**plain, "value": value, "source": f"Paper of {method}", **changes})


def cells_in(markdown: str) -> list[list[str]]:
    """The rows of the table, heads first, without the rule."""
    lines = [line for line in markdown.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(row) for row in rows}) == 1
    return [row for row in rows if not set("".join(row)) <= set("-: ")]


def test_markdown__score_gain_paper_and_costs(make_tables: MakeTable):
    numbers = (number("supervised", 23.86, spread=0.81), number("soft_teacher", 34.04))
    text = to_markdown(make_tables(BOTH, numbers, methods=ROWS, published=PAPER))
    heads, base, taught = cells_in(text)
    assert heads == [
        "Method",
        "5 % labels: AP (teacher, 0.05)",
        "5 % labels: gain",
        "paper, COCO 10 %",
        "time",
        "images/s",
        "memory, GB",
    ]
    assert base == ["Supervised", "41.0 ± 1.4", "", "23.86 ± 0.81 <sup>1</sup>", "0:01:40", "50.0", "1.5"]
    assert taught == [
        "Soft Teacher",
        "54.0 ± 1.4",
        "+13.0 (-12.4 to +38.4) wide",  # 15 and 11: 13, give or take 12.706 times 2
        "34.04 <sup>2</sup>",
        "0:01:40",
        "50.0",
        "1.5",
    ]
    assert "\n1. Paper of supervised.\n2. Paper of soft_teacher.\n" in text


def test_markdown__head_says_what_the_numbers_are(make_tables: MakeTable):
    text = to_markdown(make_tables(BOTH, warning="They mean nothing.", options={"threshold": 0.001}))
    assert text.startswith("**They mean nothing.**\n\nTwo methods on the embedded data.\n")
    assert "- AP (network, test threshold): points of the last checkpoint, on 400 easy digit scenes" in text
    assert cells_in(text)[0][1] == "5 % labels: AP (teacher, 0.001)"
    assert "- 4 of 4 trainings done; mean ± sample standard deviation over folds 1, 2.\n" in text
    assert "wide: from fewer than 5 folds. Over 'Supervised': Soft Teacher." in text
    assert "means over trainings, on cpu, 2 threads.\n" in text
    assert "- Made by commit 0123456789ab.\n" in text


def test_markdown__nothing_done_is_missing(make_tables: MakeTable):
    text = to_markdown(make_tables({}))
    _, base, taught = cells_in(text)
    assert base == ["Supervised", "-", "", "-", "-", "-"]
    assert taught == ["Soft Teacher", "-", "-", "-", "-", "-"]
    assert "0 of 4 trainings done" in text
    assert "Made by" not in text


def test_markdown__missing_folds_are_counted_and_one_fold_has_no_interval(make_tables: MakeTable):
    points = {"supervised": [40.0, 42.0, None], "soft_teacher": [55.0, None, None]}
    _, base, taught = cells_in(to_markdown(make_tables(points, folds=[1, 2, 3])))
    assert base[1] == "41.0 ± 1.4 (2 of 3 folds)"
    assert taught[1:3] == ["55.0 (1 of 3 folds)", "+15.0"]


def test_markdown__five_folds_are_not_wide(make_tables: MakeTable):
    points = {"supervised": [40.0] * 5, "soft_teacher": [51.0, 52.0, 50.0, 49.0, 53.0]}
    taught = cells_in(to_markdown(make_tables(points, folds=[1, 2, 3, 4, 5])))[2]
    assert taught[1:3] == ["51.0 ± 1.6", "+11.0 (+9.0 to +13.0)"]  # 2.776 times the root of 2.5 / 5: 1.96


def test_markdown__losses_have_a_sign_and_nothing_has_a_plus(make_tables: MakeTable):
    points = {"supervised": [40.0, None], "soft_teacher": [38.5, None]}
    assert cells_in(to_markdown(make_tables(points)))[2][2] == "-1.5"
    points = {"supervised": [40.0, None], "soft_teacher": [39.99, None]}
    assert cells_in(to_markdown(make_tables(points)))[2][2] == "+0.0"


def test_markdown__a_gain_over_fewer_folds_says_so(make_tables: MakeTable):
    text = to_markdown(make_tables({"supervised": [40.0, None], "soft_teacher": [50.0, 60.0]}))
    assert cells_in(text)[2][2] == "+10.0 <sup>1</sup>"
    assert "\n1. Over 1 fold: the baseline lacks others.\n" in text


def test_markdown__another_number_of_steps_than_the_baselines_says_so(make_tables: MakeTable):
    methods = [{**ROWS[0], "set": {"engine.steps": 1000}}, ROWS[1]]
    text = to_markdown(make_tables(BOTH, methods=methods))
    assert "\n1. Trained for 1,500 steps, its baseline for 1,000.\n" in text


def test_markdown__another_detector_than_the_baselines_says_in_what(make_tables: MakeTable):
    changed = {"detector.stages.roi.sampler.per_image": 64, "detector.stages.roi.sampler.positive_share": 0.25}
    methods = [{**ROWS[0], "set": {**changed, "detector.test.score": 0.1, "detector.neck.channels": 16}}, ROWS[1]]
    text = to_markdown(make_tables(BOTH, methods=methods))
    assert "\n1. Its detector differs from its baseline's in test, neck, stages.roi.sampler.\n" in text


def test_markdown__a_number_of_two_trainings_says_so(make_tables: MakeTable):
    text = to_markdown(make_tables({}, methods=[ROWS[0], {"recipe": "stac", "baseline": "supervised"}]))
    assert cells_in(text)[2][0] == "stac <sup>1</sup>"
    assert "\n1. Its pseudo-labels come from a training of supervised before it; steps and time are without" in text


def test_markdown__the_papers_share_stands_in_the_head(make_tables: MakeTable):
    numbers = (number("soft_teacher", 34.0), number("soft_teacher", 30.0, percent=5))
    same = make_tables({}, numbers, methods=ROWS, published={"setting": "coco_standard"}, percents=[5, 10])
    heads, _, taught = cells_in(to_markdown(same))
    assert heads[1:7] == [
        "5 % labels: AP (teacher, 0.05)",
        "5 % labels: gain",
        "5 % labels: paper, COCO",
        "10 % labels: AP (teacher, 0.05)",
        "10 % labels: gain",
        "10 % labels: paper, COCO",
    ]
    assert (taught[3], taught[6]) == ("30.0 <sup>1</sup>", "34.0 <sup>1</sup>")
    other = make_tables({}, numbers, methods=ROWS, published=PAPER, percents=[5, 2])
    assert [head for head in cells_in(to_markdown(other))[0] if "paper" in head] == ["paper, COCO 10 %"]


def test_markdown__an_unconfirmed_number_is_marked_and_its_footnote_says_all(make_tables: MakeTable):
    doubtful = number(
        "soft_teacher", 34.5, unconfirmed=True, origin="reproduction", network="student", note="batch of 8"
    )
    text = to_markdown(make_tables({}, (doubtful,), methods=ROWS, published=PAPER))
    assert cells_in(text)[2][3] == "34.5? <sup>1</sup>"
    assert "A published number with ? could not be confirmed." in text
    assert "\n1. Paper of soft_teacher; of the student; origin: reproduction; batch of 8; unconfirmed.\n" in text


def test_markdown__without_baselines_and_papers_there_are_no_columns_of_them(make_tables: MakeTable):
    heads = cells_in(to_markdown(make_tables({}, methods=[{"recipe": "supervised"}, {"recipe": "soft_teacher"}])))[0]
    assert heads == ["Method", "5 % labels: AP (teacher, 0.05)", "time", "images/s", "memory, GB"]


@pytest.fixture
def suite_of_two(write_suite: Any) -> Any:
    return cells_of(write_suite())


def test_markdown__different_devices_and_unclean_trees_say_so(suite_of_two: Any, make_result: Any):
    suite, cells = suite_of_two
    gpu = {"device": "NVIDIA H200", "processes": 2, "sources": [{"commit": "f" * 40, "clean": False}], "seconds": 20.0}
    installed = {"sources": [{"commit": None, "clean": None}]}
    changes = {("soft_teacher", 1): gpu, ("soft_teacher", 2): installed}
    results = {cell.hash: make_result(cell, 40.0, **changes.get((cell.method, cell.fold), {})) for cell in cells}
    text = to_markdown(make_table(suite, cells, results, ()))
    _, base, taught = cells_in(text)
    assert (base[3], taught[3]) == ("0:01:40 <sup>1</sup>", "0:01:00 <sup>2</sup>")
    assert "on several devices, so that times do not compare." in text
    assert "\n1. On cpu, 2 threads (2 trainings).\n" in text
    mixed = "\n2. On 2 x NVIDIA H200 (1 training) and cpu, 2 threads (1 training): a mean over different devices.\n"
    assert mixed in text
    commits = "commit 0123456789ab, commit ffffffffffff with uncommitted changes, ssodkit 0.9, installed"
    assert f"- Made by {commits}.\n" in text


def test_markdown__the_only_network_of_a_training_says_so(suite_of_two: Any, make_result: Any):
    suite, cells = suite_of_two
    result = make_result(cells[0], 40.0)
    alone = result.evaluations[-1].model_copy(update={"thresholds": {"0.05": {"student": {"AP": 0.3}}}})
    results = {cells[0].hash: result.model_copy(update={"evaluations": (alone,)})}
    text = to_markdown(make_table(suite, cells, results, ()))
    assert cells_in(text)[1][1] == "30.0 (1 of 2 folds) <sup>1</sup>"
    assert "\n1. Of the student, the only network of this training.\n" in text


NASTY = {
    "about": "50 % of a_b & <b>bold</b> | $x^2$ {y} ~ \\z #1 `c` *d* <!-- end -->\n_e_",
    "warning": "Do <not> trust_this & 5 %",
    "methods": [{**ROWS[0], "title": "a|b_c <i> & 5 %"}, {**ROWS[1], "title": "\\end{x}"}],
}


def test_markdown__text_is_no_markup(make_tables: MakeTable):
    text = to_markdown(make_tables(BOTH, **NASTY))
    about = r"50 % of a_b &amp; &lt;b>bold&lt;/b> \| $x^2$ {y} ~ \\z #1 \`c\` \*d\* &lt;!-- end --> \_e\_"
    assert text.splitlines()[2] == about
    assert text.startswith("**Do &lt;not> trust_this &amp; 5 %**\n")
    assert cells_in(text)[1][0] == r"a\|b_c &lt;i> &amp; 5 %"


def test_latex__is_balanced_and_every_row_has_every_column(make_tables: MakeTable):
    numbers = (number("supervised", 23.86, spread=0.81), number("soft_teacher", 34.04, source="a/b_c, 10 %"))
    text = to_latex(make_tables(BOTH, numbers, percents=[5], **{**NASTY, "published": PAPER}))
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert begun == ["table", "tabular", "minipage"]
    assert Counter(begun) == Counter(ended)
    code = "\n".join(line for line in text.splitlines()[1:] if not line.startswith("\\resizebox"))
    code = code.replace("\\end{tabular}}", "\\end{tabular}")  # which ends the box
    plain = re.sub(r"\\[&%$#_{}]", "", code.replace(r"\\", ""))
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[%#~^|<>]", plain)
    assert not re.search(r"_", plain.replace(r"\label{tab:mine}", ""))
    (form,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 4
    for row in rows:
        spans = [int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", row)]
        assert len(re.findall(r"(?<!\\)&", row)) + sum(spans) + 1 == len(form) == 7


def test_latex__text_and_signs_are_tex(make_tables: MakeTable):
    text = to_latex(make_tables({"supervised": [40.0, 42.0], "soft_teacher": [39.0, 40.5]}, **NASTY))
    caption = (
        r"\caption{50 \% of a\_b \& \textless{}b\textgreater{}bold\textless{}/b\textgreater{} \textbar{} "
        r"\$x\textasciicircum{}2\$ \{y\} \textasciitilde{} \textbackslash{}z \#1 `c` *d* "
        r"\textless{}!-- end --\textgreater{} \_e\_}"
    )
    assert caption in text
    assert r"41.0 $\pm$ 1.4" in text
    assert "$-$1.2 ($-$4.4 to +1.9) wide" in text
    assert r"\textbf{Do \textless{}not\textgreater{} trust\_this \& 5 \%}\par" in text
    assert "Over `a|b".replace("|", r"\textbar{}") in text
    assert to_latex(make_tables({})).count(" & -- ") > 2


class Tags(HTMLParser):
    """Collects the tree's tags, and complains where one is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: Counter[str] = Counter()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen[tag] += 1
        assert not {"src", "onclick"} & {name for name, _ in attrs}
        assert not any(str(value).startswith("http") for _, value in attrs)
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_html__is_a_whole_page_without_network_and_every_text_is_escaped(make_tables: MakeTable):
    numbers = (number("supervised", 23.86), number("soft_teacher", 34.04, source="<script>x</script>"))
    page = to_html(make_tables(BOTH, numbers, **{**NASTY, "published": PAPER}))
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen["table"] == 1
    assert not {"script", "i", "b", "not", "link"} & set(tags.seen)
    assert {"a|b_c <i> & 5 %", "Do <not> trust_this & 5 %", "<script>x</script>."} <= set(tags.text)
    assert "54.0 ± 1.4" in tags.text
    assert "light dark" in page


def test_html__heads_and_rows_have_the_same_columns(make_tables: MakeTable):
    page = to_html(make_tables(BOTH, (number("supervised", 23.86),), methods=ROWS, published=PAPER, folds=[1, 2]))
    rows = re.findall(r"<tr>(.*?)</tr>", page)
    spans = [sum(int(span) for span in re.findall(r'colspan="(\d+)"', row)) for row in rows]
    counts = [
        len(re.findall(r"<t[dh]", row)) - len(re.findall("colspan", row)) + span
        for row, span in zip(rows, spans, strict=True)
    ]
    assert counts == [7, 7, 7, 7]


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv__has_a_line_per_method_and_share_with_plain_numbers(make_tables: MakeTable):
    numbers = (number("soft_teacher", 34.04, spread=0.14, note="a, b"),)
    points = {"supervised": [40.0, 42.0, None, None], "soft_teacher": [55.0, 53.0, None, None]}
    table = make_tables(points, numbers, methods=ROWS, published=PAPER, percents=[5, 10], warning="Beware.")
    lines = read_csv(to_csv(table))
    assert [(line["method"], line["percent"]) for line in lines] == [
        ("supervised", "5.0"),
        ("supervised", "10.0"),
        ("soft_teacher", "5.0"),
        ("soft_teacher", "10.0"),
    ]
    taught = lines[2]
    assert float(taught["mean"]) == pytest.approx(54.0)
    assert float(taught["deviation"]) == pytest.approx(2**0.5)
    assert float(taught["gain"]) == pytest.approx(13.0)
    assert float(taught["gain_low"]) == pytest.approx(13 - 2 * 12.7062047, rel=1e-6)
    assert (taught["folds"], taught["folds_done"], taught["gain_folds"]) == ("2", "2", "2")
    assert (taught["published"], taught["published_spread"]) == ("34.04", "0.14")
    assert (taught["published_percent"], taught["published_note"]) == ("10.0", "a, b")
    assert (taught["network"], taught["threshold"], taught["metric"]) == ("teacher", "0.05", "AP")
    assert (taught["seconds"], taught["images_per_second"], taught["memory_gb"]) == ("100.0", "50.0", "1.5")
    assert (taught["devices"], taught["sources"]) == ("cpu, 2 threads", "commit 0123456789ab")
    assert (taught["warning"], taught["fold_hashes"]) == ("Beware.", "5pct-1 5pct-2")
    missing = lines[3]
    assert {missing[name] for name in ("mean", "deviation", "gain", "gain_low", "seconds", "devices")} == {""}
    assert (missing["folds_done"], missing["trainings"]) == ("0", "2")
    assert lines[0]["gain"] == lines[0]["baseline"] == ""


@pytest.mark.parametrize("name", FORMATS)
def test_formats__where_nothing_is_done_the_methods_are_named_all_the_same(make_tables: MakeTable, name: str):
    text = FORMATS[name](make_tables({}))
    assert "Soft Teacher" in text
    assert "None" not in text
    assert "nan" not in text
