"""The page as it is written; how it looks is seen in docs/report.md."""

import html.parser
import json
import re
from dataclasses import replace

import pytest
import yaml
from PIL import Image

from ssodkit.bench.formats import html_table
from ssodkit.bench.report.page import recipe_table, report, write_page
from ssodkit.bench.report.read import read_run, with_moments
from ssodkit.bench.report.sources import Sources
from ssodkit.bench.table import load_table
from ssodkit.errors import TrainingError

FILES = {"index.html", "page.css", "page.js", "data.js", "plotly.min.js"}


def data_of(out):
    text = (out / "data.js").read_text()
    assert text.startswith("const REPORT = ")
    return json.loads(text.removeprefix("const REPORT = ").removesuffix(";\n"))


class Reader(html.parser.HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def record(watched_run):
    """The run, with its gallery."""
    return with_moments(read_run(watched_run, "mine"), at_most=16)


def test_report__a_run_as_a_page_that_needs_nothing_else(watched_run, tmp_path):
    out = tmp_path / "page"
    assert report([str(watched_run)], out) == out / "index.html"
    assert {path.name for path in out.iterdir()} == FILES | {"images"}
    page = Reader((out / "index.html").read_text())
    links = [value for name, value in page.attributes if name in ("src", "href")]
    assert {"page.css", "page.js", "data.js", "plotly.min.js"} <= set(links)
    for link in links:
        assert link.startswith(("#", "data:")) or (out / link).is_file()
    ids = [value for name, value in page.attributes if name == "id"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert len(set(ids)) == len(ids)
    for name in FILES - {"plotly.min.js"}:  # that one names the sources of its parts
        text = (out / name).read_text()
        assert "http:" not in text
        assert "https:" not in text
        assert str(watched_run.parent) not in text


def test_report__its_data_are_the_curves_of_the_log(watched_run, tmp_path):
    report([str(watched_run)], tmp_path / "page")
    lines = [json.loads(line) for line in (watched_run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    figures = data_of(tmp_path / "page")["figures"]
    for key in ("loss", "lr", "gradient_norm", "images_per_second", "memory_gb"):
        ((trace,),) = [content["data"] for content in figures[key]]
        assert trace["x"] == [1, 2, 3, 4]
        assert trace["y"] == [step[key] for step in steps]
    terms = {trace["name"]: trace["y"] for trace in figures["terms"][0]["data"]}
    assert terms == {name: [step["losses"][name] for step in steps] for name in steps[0]["losses"]}


def test_report__the_gallery_has_boxes_verdicts_and_images_of_all_moments(watched_run, tmp_path):
    out = tmp_path / "page"
    report([str(watched_run)], out)
    (gallery,) = data_of(out)["galleries"]
    written = [json.loads(line) for line in (watched_run / "gallery" / "moments.jsonl").read_text().splitlines()]
    assert gallery["steps"] == [2, 4]
    assert gallery["classes"] == list("0123456789")
    assert [image["id"] for image in gallery["images"]] == [image["id"] for image in written[0]["images"]]
    verdicts = set()
    for place, image in enumerate(gallery["images"]):
        with Image.open(out / image["source"]) as picture:
            assert list(picture.size[::-1]) == image["size"]
        for moment, before in zip(image["moments"], written, strict=True):
            original = before["images"][place]
            assert moment["found"]["verdict"] == original["found"]["verdict"]
            assert moment["detections"] == original["detections"]
            assert moment["truth"] == original["truth"]
            verdicts |= set(moment["found"]["verdict"])
    assert "taught" in verdicts
    assert len(verdicts) > 1, "some are rejected, with a reason"


def test_report__large_images_are_made_smaller_and_lost_ones_left_out(copy_run, tmp_path):
    run = copy_run("mine")
    large, lost, *_ = sorted((run / "gallery").glob("*.png"))
    Image.new("RGB", (1400, 700)).save(large)
    lost.unlink()
    report([str(run)], tmp_path / "page")
    (gallery,) = data_of(tmp_path / "page")["galleries"]
    sources = {image["id"]: image["source"] for image in gallery["images"]}
    assert sources[int(lost.stem)] is None
    with Image.open(tmp_path / "page" / sources[int(large.stem)]) as picture:
        assert picture.size == (640, 320)


def test_report__a_run_that_has_just_begun(copy_run, tmp_path):
    run = copy_run("begun", "gallery", "metrics.jsonl", "result.json")
    report([str(run)], tmp_path / "page")
    data = data_of(tmp_path / "page")
    assert data["galleries"] == []
    assert all(variants == [] for variants in data["figures"].values())
    texts = "\n".join(Reader((tmp_path / "page" / "index.html").read_text()).texts)
    assert "Not finished, shown as far as it is: begun." in texts
    assert "Nothing to show: there has been no evaluation yet." in texts
    assert "Nothing to show: no run has a gallery" in texts
    assert "0 of 4" in texts


def test_report__names_from_outside_are_text(record, tmp_path):
    name = "<script>alert('1')</script>&amp;"
    other = replace(record, name=name, row=name, recipe={**record.recipe, "name": name}, notes=(name,))
    write_page(Sources([record, other], [name], []), tmp_path)
    written = (tmp_path / "index.html").read_text()
    page = Reader(written)
    assert page.tags.count("script") == 3
    assert "alert" not in written.replace("&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt;&amp;amp;", "")
    assert name in page.texts
    assert "<" not in (tmp_path / "data.js").read_text()
    assert [each["name"] for each in data_of(tmp_path)["galleries"]] == ["mine", name]
    for trace in data_of(tmp_path)["figures"]["loss"][0]["data"]:
        assert "<script" not in trace["name"] + trace["hovertemplate"]


def test_report__the_overview_has_scores_of_the_result(record, tmp_path):
    write_page(Sources([record], [], []), tmp_path)
    page = (tmp_path / "index.html").read_text()
    row = re.search(r"<tr><th scope='row'>mine</th>(.*?)</tr>", page)[1]
    cells = re.findall(r"<td>(.*?)</td>", row)
    networks = record.result["thresholds"][record.threshold]
    assert cells[:3] == [
        f"<strong>{100 * networks['teacher']['AP']:.1f}</strong>",
        f"{100 * networks['student']['AP']:.1f}",
        "4",
    ]
    assert cells[6] == "soft_teacher"
    assert cells[7] == record.result["device"]


def test_report__a_suites_table_stands_on_top_as_the_command_table_has_it(tmp_path):
    suites = ["digits_small", "digits_tiny"]
    report(suites, tmp_path / "page", runs=tmp_path)
    written = (tmp_path / "page" / "index.html").read_text()
    page = Reader(written)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    assert {value[1:] for name, value in page.attributes if name == "href" and value.startswith("#")} <= set(ids)
    places = [written.index(f"<section id='suite-{name}'") for name in suites]
    assert places == sorted(places)
    assert places[-1] < written.index('<section id="runs">')
    for name in suites:
        assert html_table(load_table(name)[0]) in written
    assert page.texts.count(load_table("digits_tiny")[0].suite.warning) == 1
    assert "<details>" not in written  # these result files were written before classes were kept


def test_recipe_table__has_exactly_the_keys_that_differ(record):
    changed = yaml.safe_load(record.recipe_text)
    changed["engine"]["lr"] = {"type": "constant", "value": 0.5}
    changed["seed"] = 7
    del changed["views"]["pad_to"]
    before = record.recipe["engine"]["lr"]
    rows = {row["key"]: row["values"] for row in recipe_table([record, replace(record, recipe=changed), record])}
    assert rows.pop("seed") == [str(record.recipe["seed"]), "7", str(record.recipe["seed"])]
    assert rows.pop("views.pad_to") == ["32", None, "32"]
    assert {key.split(".")[1] for key in rows} == {"lr"}
    assert rows["engine.lr.type"] == [json.dumps(before["type"]), '"constant"', json.dumps(before["type"])]
    assert recipe_table([record, record]) == []
    assert recipe_table([record]) == []


@pytest.mark.parametrize(("size", "file"), [(10, "images/0/.*"), (30_000, "plotly.min.js|index.html|data.js")])
def test_report__where_the_disk_is_full_the_file_is_named_and_nothing_stays(
    watched_run, tmp_path, file_limit, size, file
):
    with file_limit(size), pytest.raises(OSError, match="File too large") as caught:
        report([str(watched_run)], tmp_path / "page")
    assert re.fullmatch(rf"{tmp_path}/page/({file})", caught.value.filename)
    assert not (tmp_path / "page").exists()


def test_report__nothing_is_written_where_something_is_wrong(watched_run, tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("mine")
    with pytest.raises(TrainingError, match="used is not empty"):
        report([str(watched_run)], used)
    assert [path.name for path in used.iterdir()] == ["mine.txt"]
    with pytest.raises(TrainingError, match="holds no run"):
        report([str(used)], tmp_path / "page")
    assert not (tmp_path / "page").exists()
