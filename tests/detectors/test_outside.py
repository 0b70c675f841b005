"""What lies in a file outside the package trains as what lies in it, and is refused as clearly."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
BASES = TESTS.parent / "recipes" / "bases"
RECIPE = f"""
extends:
  - {BASES}/data/digits.yaml
  - {BASES}/views/digits.yaml
  - {BASES}/methods/mean_teacher.yaml
  - {BASES}/schedules/digits.yaml
plugins: [plug_outside.py]
name: outside
detector:
  type: outside_detector
  backbone: {{type: small, stem: 8, channels: [8, 16]}}
  neck: {{channels: 8, extra_levels: 0}}
  head: {{type: outside_head, layers: 1, groups: 2, prior: 0.2}}
  stages:
    dense:
      matcher: {{type: outside_touching}}
      terms:
        class: {{taught_by: classes, criterion: {{type: focal}}, normalizer: outside_images}}
        box: {{taught_by: boxes, criterion: {{type: giou}}, normalizer: {{type: outside_images}}}}
        surety: {{taught_by: boxes, criterion: {{type: outside_criterion}}, normalizer: positives}}
  test: {{rank: {{class: 1.0, sure: 0.5}}}}
method: {{unlabeled_weight: 1.0, teacher: {{score: 0.0}}, selector: {{type: fixed, above: 0.01}}}}
engine: {{steps: 4}}
data: {{batch: {{labeled: 2, unlabeled: 2}}}}
"""
CODE = """
import sys
from ssodkit.errors import RecipeError
from ssodkit.recipe.check import load_recipe
from two_steps import take_two_steps
take_two_steps(load_recipe("outside.yaml", trust_plugins=True))
print("two steps")
for change in sys.argv[1:]:
    try:
        load_recipe("outside.yaml", [change], trust_plugins=True)
    except RecipeError as error:
        print(str(error))
"""


def test_plug_ins__from_a_file_outside_the_package_train_together_and_are_refused_by_the_same_rules(tmp_path: Path):
    shutil.copy(TESTS / "detectors" / "plug_outside.py", tmp_path)
    (tmp_path / "outside.yaml").write_text(RECIPE)
    terms = "detector.stages.dense.terms"
    changes = [
        f"{terms}.surety=null",
        f"{terms}.worth={{taught_by: boxes, criterion: {{type: quality}}, normalizer: outside_images}}",
        "detector.test.rank={class: 1, quality: 1}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CODE, *changes],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        capture_output=True,
        text=True,
        check=True,
    )
    untaught = "no term teaches the stage's answer 'sure'; give it one with a criterion that does: outside_criterion"
    expected = [
        "two steps",
        f"{terms}: {untaught}",
        f"{terms}.worth.criterion: 'quality' needs 'quality', which the stage 'dense' of 'outside_detector' does not "
        "provide; nothing installed provides it",
        "detector.test.rank.quality: the stage 'dense' has no such answer; answers to rank by: class, sure",
    ]
    for line, end in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.endswith(end), line
