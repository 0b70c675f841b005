"""The list of published numbers: its form, values copied by hand, and how one is found."""

from pathlib import Path
from typing import get_args

import pytest

from ssodkit.bench.published import (
    SHARES,
    Detector,
    Method,
    Metric,
    Published,
    Setting,
    find_published,
    read_published,
    shipped_benchmarks,
)
from ssodkit.errors import RecipeError

FASTER, RETINA, FCOS, YOLO = "faster_rcnn_r50", "retinanet_r50", "fcos_r50", "yolov5_l"

MAIN = [
    ("supervised", FASTER, 1, 9.05, 0.16),
    ("supervised", FASTER, 10, 23.86, 0.81),
    ("supervised", RETINA, 5, 19.40, None),
    ("supervised", FCOS, 10, 23.70, None),
    ("supervised", "dino_r50", 5, 29.5, None),
    ("supervised", "dense_detector_r50", 10, 24.04, None),
    ("stac", FASTER, 10, 28.64, 0.21),
    ("csd", FASTER, 1, 11.12, 0.15),
    ("unbiased_teacher", FASTER, 0.5, 16.94, 0.23),
    ("unbiased_teacher", FASTER, 10, 31.50, 0.10),
    ("soft_teacher", FASTER, 1, 20.46, 0.39),
    ("soft_teacher", FASTER, 2, 24.9, None),
    ("soft_teacher", FASTER, 10, 34.04, 0.14),
    ("humble_teacher", FASTER, 5, 27.70, 0.15),
    ("instant_teaching", FASTER, 2, 20.70, 0.30),
    ("instant_teaching_star", FASTER, 10, 30.40, 0.05),
    ("pseco", FASTER, 10, 36.06, 0.24),
    ("labelmatch", FASTER, 1, 25.81, 0.28),
    ("acrst", FASTER, 1, 26.07, None),
    ("s4od", RETINA, 10, 32.90, None),
    ("s4od", FCOS, 10, 35.0, None),
    ("mean_teacher", RETINA, 10, 35.50, None),
    ("mean_teacher", FASTER, 10, 28.4, None),
    ("consistent_teacher", RETINA, 1, 25.30, None),
    ("consistent_teacher", RETINA, 10, 40.00, None),
    ("dense_teacher", FCOS, 10, 37.13, 0.12),
    ("unbiased_teacher_v2", FCOS, 1, 22.71, 0.42),
    ("unbiased_teacher_v2", FASTER, 10, 35.08, 0.02),
    ("dsl", FCOS, 5, 30.87, 0.24),
    ("efficient_teacher", "dense_detector_r50", 2, 27.15, 0.13),
    ("efficient_teacher", YOLO, 10, 37.90, 0.04),
    ("semi_detr", "dino_r50", 5, 40.10, 0.15),
    ("semi_detr", "deformable_detr_r50", 10, 38.1, None),
    ("omni_detr", "dino_r50", 1, 27.6, None),
]
"""Method, detector, percent of COCO, AP and its spread: the main rows of every method."""

ELSEWHERE = [
    ("stac", FASTER, "coco_additional", "AP", 39.21),
    ("soft_teacher", FASTER, "coco_additional", "AP", 44.5),
    ("soft_teacher", "htc_swin_l", "coco_additional", "mask_AP_test_dev", 52.4),
    ("consistent_teacher", RETINA, "coco_additional", "AP", 47.70),
    ("proposal_learning", FASTER, "coco_additional", "AP", 38.4),
    ("semi_detr", "dino_r50", "coco_additional", "AP", 50.5),
    ("supervised", FASTER, "voc07_voc12", "AP50", 76.30),
    ("supervised", FASTER, "voc07_voc12", "AP75", 44.50),
    ("supervised", FASTER, "voc0712", "AP", 54.29),
    ("csd", "ssd512", "voc07_voc12", "AP50", 75.8),
    ("csd", "rfcn_r101", "voc07_voc12_coco80", "AP50", 74.9),
    ("unbiased_teacher", FASTER, "voc07_voc12", "AP", 48.69),
    ("unbiased_teacher", FASTER, "voc07_voc12", "AP_voc07", 54.48),
    ("instant_teaching_star", FASTER, "voc07_voc12_coco20", "AP75", 55.70),
    ("consistent_teacher", RETINA, "voc07_voc12", "AP50", 81.00),
    ("labelmatch", FASTER, "voc07_voc12", "AP", 55.11),
    ("dsl", FCOS, "voc07_voc12_coco20", "AP", 59.8),
    ("supervised", FCOS, "coco_full", "AP", 38.7),
    ("supervised", "dino_swin_l_5scale", "coco_full", "AP", 57.3),
    ("sa_autoaug", "mask_rcnn_r50", "coco_full", "AP", 42.8),
]
"""Method, detector, setting, metric and value of main rows."""

VARIANTS = [
    ("soft_teacher", FASTER, 10, "end-to-end, soft teacher, box jitter", 34.2),
    ("soft_teacher", FASTER, 1, "test score threshold 0.001", 22.64),
    ("consistent_teacher", RETINA, 10, "ASA, FAM-2D", 39.1),
    ("consistent_teacher", RETINA, 10, "2 images on each of 8 GPUs, fp16", 37.90),
    ("stac", FASTER, 5, "8 times as many unlabeled as labeled images", 23.14),
    ("humble_teacher", FASTER, 10, "hard labels", 27.97),
    ("instant_teaching", FASTER, 10, "threshold 0.3", 26.30),
    ("labelmatch", FASTER, 5, "released code, 32 + 32 images, 40k iterations, after 12k", 29.2),
    ("dense_teacher", FCOS, 1, "short edge 640 to 800", 19.64),
    ("efficient_teacher", YOLO, 10, "high threshold 0.7", 35.10),
    ("semi_detr", "dino_r50", 10, "a user's run on 5 GPUs", 39.9),
    ("supervised", FASTER, 5, "strong augmentation", 21.18),
    ("unbiased_teacher", FASTER, 10, "a third party's weight of 1", 31.947),
    ("stac", FASTER, 5, "color, geometry and cutout", 23.14),
]

LINE = "{method: stac, detector: ssd300, setting: coco_standard, percent: 1, metric: AP, value: 9.5, source: a}"


@pytest.fixture(scope="module")
def shipped() -> tuple[Published, ...]:
    return read_published()


def entry(**changes: object) -> Published:
    plain = {"method": "stac", "detector": "ssd300", "setting": "coco_additional", "metric": "AP", "value": 40.0}
    return Published.model_validate({**plain, "source": "a", **changes})


def find(entries: tuple[Published, ...], **changes: object) -> Published | None:
    wanted = {"method": "stac", "detector": "ssd300", "setting": "coco_additional", "percent": None, "metric": "AP"}
    return find_published(entries, **(wanted | changes))  # type: ignore[arg-type]


def mistakes_in(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        read_published(Path("mine.yaml"))
    return str(error.value).splitlines()


def test_published__every_name_of_the_closed_sets_is_used(shipped: tuple[Published, ...]):
    assert len(shipped) >= 580
    for key, names in (("method", Method), ("detector", Detector), ("setting", Setting), ("metric", Metric)):
        assert {getattr(row, key) for row in shipped} == set(get_args(names))


def test_published__no_entry_stands_twice_and_every_source_says_where(shipped: tuple[Published, ...]):
    assert len({row.key for row in shipped}) == len(shipped)
    named = [row for row in shipped if "arXiv:" in row.source or "/" in row.source or "NeurIPS 2019" in row.source]
    assert named == list(shipped)


def test_published__settings_with_a_share_have_a_percent(shipped: tuple[Published, ...]):
    for row in shipped:
        assert (row.percent is not None) == (row.setting in SHARES)
    assert {row.percent for row in shipped if row.setting == "coco_standard"} == {0.5, 1, 2, 5, 10}


def test_published__a_number_of_each_class_says_how_many_in_its_variant(shipped: tuple[Published, ...]):
    few = [row for row in shipped if row.setting.endswith("_per_class")]
    assert {(row.setting, row.method) for row in few} == {
        (setting, method) for setting in ("coco_per_class", "voc_per_class") for method in ("semi_detr", "mixpl")
    }
    assert all("of each class" in (row.variant or "") and row.unconfirmed for row in few)


@pytest.mark.parametrize(("method", "detector", "percent", "value", "spread"), MAIN)
def test_published__main_rows_on_shares_of_coco(
    shipped: tuple[Published, ...], method: str, detector: str, percent: int | float, value: float, spread: float | None
):
    row = find_published(
        shipped, method=method, detector=detector, setting="coco_standard", percent=percent, metric="AP"
    )
    assert row is not None
    assert (row.value, row.spread) == (value, spread)


@pytest.mark.parametrize(("method", "detector", "setting", "metric", "value"), ELSEWHERE)
def test_published__main_rows_of_other_settings_and_metrics(
    shipped: tuple[Published, ...], method: str, detector: str, setting: str, metric: str, value: float
):
    row = find_published(shipped, method=method, detector=detector, setting=setting, percent=None, metric=metric)
    assert row is not None
    assert row.value == value


@pytest.mark.parametrize(("method", "detector", "percent", "variant", "value"), VARIANTS)
def test_published__ablations_and_other_runs(
    shipped: tuple[Published, ...], method: str, detector: str, percent: int | float, variant: str, value: float
):
    wanted = (method, detector, "coco_standard", percent, "AP", variant)
    assert [row.value for row in shipped if row.key[:6] == wanted] == [value]


@pytest.mark.parametrize(
    ("method", "detector", "percent", "value"),
    [
        ("supervised", FASTER, 0.5, 6.83),
        ("stac", FASTER, 0.5, 9.78),
        ("supervised", FASTER, 10, 26.18),
        ("unbiased_teacher_v2", FASTER, 5, 31.85),
        ("dense_teacher", FCOS, 2, 25.39),
        ("semi_detr", "deformable_detr_r50", 1, 25.2),
        ("instant_teaching", FASTER, 5, 25.40),
    ],
)
def test_published__what_could_not_be_checked_says_so(
    shipped: tuple[Published, ...], method: str, detector: str, percent: int | float, value: float
):
    rows = [row for row in shipped if (row.method, row.detector, row.percent) == (method, detector, percent)]
    assert [row.unconfirmed for row in rows if row.value == value and row.metric == "AP"] == [True]
    assert any(not row.unconfirmed for row in shipped if row.method == method)


def test_published__a_gain_is_no_ap(shipped: tuple[Published, ...]):
    gains = {row.percent: row.value for row in shipped if row.metric == "AP_gain" and row.percent}
    assert gains == {1: 1.3, 2: 0.7, 5: 0.4, 10: 0.5}


def test_published__the_network_scored_is_named_where_it_is_known(shipped: tuple[Published, ...]):
    networks = {row.source: row.network for row in shipped if row.method == "soft_teacher" and row.percent == 10}
    assert networks["Xu et al., ICCV 2021, arXiv:2106.09018"] is None
    assert networks["microsoft/SoftTeacher README"] == "student"
    assert networks["open-mmlab/mmdetection 3.x"] == "teacher"


def test_shipped_benchmarks__holds_the_list():
    assert (shipped_benchmarks() / "published.yaml").is_file()


def test_read_published__an_empty_list_has_no_entry(tmp_path: Path):
    path = tmp_path / "none.yaml"
    for text in ("", "# none yet\n", "[]\n"):
        path.write_text(text, encoding="utf-8")
        assert read_published(path) == ()


@pytest.mark.parametrize(
    ("old", "new", "mistake"),
    [
        ("value: 9.5", "value: 0", "mine.yaml:2:91 1.value: must be above 0.0, not 0"),
        ("value: 9.5", "value: 950", "mine.yaml:2:91 1.value: must be at most 100.0, not 950"),
        ("value: 9.5", "value: 9.5 ± 1", "mine.yaml:2:91 1.value: must be a number, not '9.5 ± 1'"),
        ("value: 9.5", "valeu: 9.5", "mine.yaml:2:84 1.valeu: unknown key; did you mean 'value'?"),
        (", source: a", "", "mine.yaml:2:3 1.source: is missing"),
        ("metric: AP", "metric: mAP", "mine.yaml:2:80 1.metric: must be 'AP', 'AP50', "),
        ("percent: 1, ", "", "mine.yaml:2:3 1: the setting 'coco_standard' needs a `percent`"),
        ("coco_standard", "coco_full", "mine.yaml:2:3 1: the setting 'coco_full' has no `percent`"),
        ("source: a", "source: a, spread: -1", "mine.yaml:2:115 1.spread: must be at least 0.0, not -1"),
        ("source: a", "source: a, origin: blog", "mine.yaml:2:115 1.origin: must be 'paper', 'repository' or 'repro"),
    ],
)
def test_read_published__a_broken_entry_is_refused_at_its_place(
    old: str, new: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert old in LINE
    text = f"- {LINE.replace('stac', 'csd')}\n- {LINE.replace(old, new)}\n"
    lines = mistakes_in(text, tmp_path, monkeypatch)
    assert any(line.startswith(mistake) for line in lines), lines


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (f"- {LINE}\n- {LINE}\n", "mine.yaml:2:3 1: this row of this source stands twice; first in line 1"),
        ("stac: 1\n", "mine.yaml:1:1: published numbers are a list of entries"),
        ("- [\n", "mine.yaml:2:1: this is not YAML: "),
        ("- stac\n", "mine.yaml:1:3 0: must be a mapping of keys, not 'stac'"),
    ],
)
def test_read_published__a_broken_list_is_refused(
    text: str, mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (line,) = mistakes_in(text, tmp_path, monkeypatch)
    assert line.startswith(mistake)


def test_read_published__a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match=r"none\.yaml:1:1: this file cannot be read: No such file"):
        read_published(tmp_path / "none.yaml")


def test_find_published__the_paper_comes_before_the_repository_before_a_reproduction():
    paper = entry(value=10.0)
    repository = entry(value=11.0, origin="repository")
    reproduction = entry(value=12.0, origin="reproduction")
    assert find((reproduction, repository, paper)) is paper
    assert find((reproduction, repository)) is repository
    assert find((reproduction,)) is reproduction


def test_find_published__a_confirmed_number_comes_before_an_unconfirmed_one():
    doubtful = entry(value=10.0, unconfirmed=True)
    checked = entry(value=11.0, origin="reproduction")
    assert find((doubtful, checked)) is checked
    assert find((doubtful,)) is doubtful


def test_find_published__a_variant_is_no_main_row_and_of_equals_the_first_counts():
    ablation = entry(variant="threshold 0.7")
    first, second = entry(value=11.0, source="b"), entry(value=12.0, source="c")
    assert find((ablation,)) is None
    assert find((ablation, first, second)) is first


def test_find_published__nothing_is_found_of_another_setting_metric_or_percent():
    assert find(()) is None
    assert find((entry(),), metric="AP50") is None
    assert find((entry(),), setting="coco_full") is None
    assert find((entry(setting="coco_standard", percent=5),), setting="coco_standard", percent=10) is None
    assert find((entry(setting="coco_standard", percent=10),), setting="coco_standard", percent=10) is not None


def test_find_published__of_a_variant_is_its_row_alone():
    main, other = entry(value=40.0), entry(value=38.0, variant="without jitter")
    assert find((main, other), variant="without jitter") == other
    assert find((main, other)) == main
    assert find((main,), variant="without jitter") is None
