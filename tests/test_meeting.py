"""The meeting: every method preset, on every detector, with every matcher of every stage and every selector.

Each either takes two steps, or is refused before a network exists. docs/compatibility.md shows what came of it;
`python tests/test_meeting.py` writes that page, and the list of the refused, anew.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from two_steps import take_two_steps

from ssodkit.errors import RecipeError
from ssodkit.plugins import load_plugins, members
from ssodkit.recipe.check import load_recipe
from ssodkit.recipe.model import Recipe

ROOT = Path(__file__).parents[1]
BASES = ROOT / "recipes" / "bases"
PAGE = ROOT / "docs" / "compatibility.md"
REFUSED = Path(__file__).with_name("refused_meetings.txt")

PRESETS = sorted(path.stem for path in (BASES / "methods").glob("*.yaml"))
DETECTORS = {
    "faster_rcnn": ("faster_rcnn_small", ("rpn", "roi"), ()),
    "retinanet, head plain": ("retinanet_small", ("dense",), ("detector.head.layers=1", "detector.head.prior=0.2")),
    "retinanet, head fam3d": (
        "retinanet_fam3d_small",
        ("dense",),
        ("detector.head.layers=1", "detector.head.prior=0.2"),
    ),
    "fcos": ("fcos_small", ("dense",), ("detector.head.layers=1", "detector.head.prior=0.2")),
    "dense_objectness": (
        "dense_objectness_small",
        ("dense",),
        ("detector.head.layers=1", "detector.head.objects=3000.0"),
    ),
    "dino": (
        "dino_small",
        ("encoder", "decoder"),
        (
            "detector.transformer={heads: 2, points: 1, encoder_layers: 1, decoder_layers: 2, width: 8}",
            "detector.neck.groups=2",
            "detector.queries=20",
            "detector.denoising.queries=4",
            "detector.prior=0.2",
        ),
    ),
}
TINY = (
    "detector.backbone={type: small, stem: 8, channels: [8, 16]}",
    "detector.neck.channels=8",
    "engine.steps=4",
    "data.batch.labeled=2",
)
IMITATING = ("dense_teacher", "humble_teacher")
"""Presets in which a teacher's answers teach: without a selector, on views that show images at the same places."""
LISTENING = ("unbiased_teacher_v2",)
"""Presets that ask how unsure a box is of its sides; the detectors that can say it are told to."""
OF_TWO_RANKINGS = (
    "{type: soft_teacher, objectness: {score: plain, above: 0.05}, classes: {score: plain, above: 0.05}, "
    "boxes: {score: certain, above: 0.05}}"
)
"""Their selector `soft_teacher`, which no scorer has to serve."""
UNSURE_TERM = "terms.uncertainty={taught_by: boxes, criterion: {type: gaussian}, normalizer: positives}"
UNSURE = {
    "faster_rcnn": (
        "detector.roi.uncertainty=true",
        "detector.roi.code={form: sides}",
        f"detector.stages.roi.{UNSURE_TERM}",
        "method.unlabeled_terms.rpn/box={criterion: {type: l1}, normalizer: sampled}",
    ),
    "retinanet, head plain": (
        "detector.head.uncertainty=true",
        "detector.head.code={form: sides}",
        f"detector.stages.dense.{UNSURE_TERM}",
    ),
    "retinanet, head fam3d": ("detector.head.uncertainty=true", f"detector.stages.dense.{UNSURE_TERM}"),
    "fcos": ("detector.head.uncertainty=true", f"detector.stages.dense.{UNSURE_TERM}"),
}
TINY_LEARNING = ("method.teacher.score=0.0", "method.unlabeled_weight=1.0", "data.batch.unlabeled=2")
MIRRORED = ("data.batch.unlabeled=2", "method.consistencies.0.weight=1.0")
STORED = ("data.unlabeled={type: stored, file: labels.json}", "data.batch.unlabeled=2")
CONFIDENT = "{score: confidence, above: 0.05}"
SELECTORS = {  # with thresholds that a new network passes
    "fixed": "{type: fixed, above: 0.05}",
    "gmm": "{type: gmm, policy: middle, expected_factor: 100.0}",
    "label_distribution": "{type: label_distribution, reliable: 10, uncertain: 10, floor: 0.0}",
    "soft_teacher": f"{{type: soft_teacher, objectness: {CONFIDENT}, classes: {CONFIDENT}, "
    "boxes: {score: box_jitter, below: 10.0}}",
}
MATCHERS = {
    "hungarian": "{type: hungarian}",
    "max_iou": "{type: max_iou, positive: 0.4, negative: 0.3}",
    "adaptive": "{type: adaptive}",
    "one_to_many": "{type: one_to_many}",
    "points": "{type: points, ranges: [22]}",
    "shapes": "{type: shapes}",
}
REASONS = {
    "needs 'exact_regions'": "a scorer of the method asks about any box, where anchors and queries have no answer",
    "needs 'predictions'": "the matcher reads answers, and the regions of this stage are drawn before it answers",
    "needs 'strides'": "the matcher counts in cells of the pyramid, and the regions of this stage lie on none",
    "needs 'places'": "the matcher compares where candidates lie, and queries lie nowhere until they answer",
    "needs 'comparable_answers'": "the method compares answers candidate by candidate, and no two queries are the same",
    "needs 'queries'": "the method asks further queries about boxes, and only a transformer takes any",
    "reads the score": "the selector reads the score of a scorer that the method does not have; add it where 1 allows",
    "needs 'uncertainty'": "the method asks how unsure a box is of its four sides, which this detector does not say",
    "answers to rank by": "the teacher's detections are ranked by that, too",
}
"""What may stand in the way: words of its sentence, and what they mean."""


@dataclass(frozen=True)
class Meeting:
    """One combination; the selector is "none" for a method without."""

    preset: str
    detector: str
    stage: str
    matcher: str
    selector: str

    def __str__(self) -> str:
        return " | ".join((self.preset, self.detector, f"{self.stage}: {self.matcher}", self.selector))

    def load(self) -> Recipe:
        """Its recipe. Raises RecipeError where its parts do not fit."""
        base, _, overrides = DETECTORS[self.detector]
        views = "digits_shared_geometry" if self.preset in IMITATING else "digits"
        files = (f"detectors/{base}", "data/digits", f"views/{views}", f"methods/{self.preset}", "schedules/digits")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "meeting.yaml"
            path.write_text(f"extends: [{', '.join(f'{BASES}/{name}.yaml' for name in files)}]\nname: meeting\n")
            changes = [*TINY, *overrides, f"detector.stages.{self.stage}.matcher={MATCHERS[self.matcher]}"]
            if self.preset == "stac":
                changes += STORED
            if self.preset == "csd":
                changes += MIRRORED
            if self.preset in IMITATING:
                changes.append("data.batch.unlabeled=2")
                if self.preset == "dense_teacher" and self.detector == "faster_rcnn":
                    changes.append("method.terms.roi/class={criterion: {type: softmax}, normalizer: positives}")
            if self.preset in LISTENING:
                changes += UNSURE.get(self.detector, ())
            if self.selector == "none":
                return load_recipe(path, changes)
            selector = SELECTORS[self.selector]
            if self.preset in LISTENING and self.selector == "soft_teacher":
                selector = OF_TWO_RANKINGS
            return load_recipe(path, [*changes, *TINY_LEARNING, f"method.selector={selector}"])


def all_meetings() -> Iterator[Meeting]:
    """In the order of the page."""
    load_plugins()
    for detector, (_, stages, _) in DETECTORS.items():
        for preset in PRESETS:
            learns = preset not in ("supervised", "stac", "csd", *IMITATING)
            for stage in stages:
                for matcher in members("matcher"):
                    for selector in members("selector") if learns else ("none",):
                        yield Meeting(preset, detector, stage, matcher, selector)


def walk() -> dict[Meeting, str]:
    """Every meeting, and the sentence that refuses it, or "" where it took its two steps."""
    outcomes = {}
    for meeting in all_meetings():
        try:
            recipe = meeting.load()
        except RecipeError as error:
            outcomes[meeting] = str(error)
            continue
        try:
            take_two_steps(recipe)
        except Exception as error:
            raise AssertionError(f"{meeting} is not refused, and does not run") from error
        outcomes[meeting] = ""
    return outcomes


def reasons(sentence: str) -> list[int]:
    """What stands in the way: places in REASONS, from 1."""
    return [number for number, words in enumerate(REASONS, start=1) if words in sentence]


@pytest.fixture(scope="module")
def outcomes() -> dict[Meeting, str]:
    return walk()


def test_meeting__knows_every_plug_in():
    load_plugins()
    assert set(SELECTORS) == set(members("selector"))
    assert set(MATCHERS) == set(members("matcher"))
    assert {base.removesuffix("_small").split("_fam3d")[0] for base, _, _ in DETECTORS.values()} == set(
        members("detector")
    )
    assert len(PRESETS) >= 6


def test_meeting__exactly_the_listed_combinations_are_refused(outcomes):
    refused = [str(meeting) for meeting, sentence in outcomes.items() if sentence]
    assert refused == REFUSED.read_text(encoding="utf-8").splitlines()


def test_meeting__every_refusal_has_one_of_the_reasons_that_there_may_be(outcomes):
    for meeting, sentence in outcomes.items():
        for line in filter(None, sentence.splitlines()):
            assert len(reasons(line)) == 1, f"{meeting}: {line}"
        if 1 in reasons(sentence):
            assert meeting.detector != "faster_rcnn"
        if 2 in reasons(sentence):
            assert meeting.stage == "roi"
            assert meeting.matcher in ("adaptive", "hungarian", "one_to_many")
        if 3 in reasons(sentence):
            assert (meeting.stage, meeting.matcher) in {("roi", "points"), ("roi", "shapes")}


def test_meeting__the_page_shows_what_came_of_it(outcomes):
    assert PAGE.read_text(encoding="utf-8") == render(outcomes), "run `python tests/test_meeting.py`"


def render(outcomes: dict[Meeting, str]) -> str:
    """docs/compatibility.md."""
    load_plugins()
    lines = [
        "# What works with what",
        "",
        "Every method preset of `recipes/bases/methods/`, on every detector, with every selector and with every",
        "matcher of every stage: a test lets each combination take two steps of training (`yes`), or `ssodkit recipe",
        "check` refuses it with a sentence that says what would do instead. The test writes this page:",
        "`python tests/test_meeting.py`. A method that asks how unsure boxes are is given detectors told to say it.",
        "",
        *(f"- **{number}**: {meaning}." for number, meaning in enumerate(REASONS.values(), start=1)),
    ]
    for detector, (_, stages, _) in DETECTORS.items():
        columns = [(stage, matcher) for stage in stages for matcher in members("matcher")]
        lines += ["", f"## {detector}", "| method | selector | " + " | ".join(f"{s}: `{m}`" for s, m in columns) + " |"]
        lines += ["| --- " * (len(columns) + 2) + "|"]
        rows = dict.fromkeys((one.preset, one.selector) for one in outcomes if one.detector == detector)
        for preset, selector in rows:
            cells = [outcomes[Meeting(preset, detector, stage, matcher, selector)] for stage, matcher in columns]
            shown = [", ".join(map(str, reasons(cell))) if cell else "yes" for cell in cells]
            lines.append(f"| {preset} | {selector} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    came_of_it = walk()
    REFUSED.write_text("".join(f"{meeting}\n" for meeting, sentence in came_of_it.items() if sentence))
    PAGE.write_text(render(came_of_it), encoding="utf-8")
