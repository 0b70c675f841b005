"""Laying recipes over each other: `extends`, the change of a `type`, and `--set`."""

from pathlib import Path
from typing import Any

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.merge import merge, override, read_tree
from ssodkit.recipe.read import Mistake, Written, parse_yaml


def tree(text: str, source: str = "a.yaml") -> Written:
    written = parse_yaml(text, source, [])
    assert written is not None
    return written


def merged(base: str, over: str) -> Any:
    return merge(tree(base), tree(over)).plain


def changed(text: str, *overrides: str) -> Any:
    mistakes: list[Mistake] = []
    written = tree(text)
    for item in overrides:
        written = override(written, item, mistakes)
    assert not mistakes
    return written.plain


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)


def test_merge__mappings_key_by_key_and_the_rest_replaces():
    assert merged("{a: {b: 1, c: [1, 2]}, d: 4}", "{a: {c: [3]}, d: {e: 5}}") == {
        "a": {"b": 1, "c": [3]},
        "d": {"e": 5},
    }
    assert merged("{a: {b: 1}}", "{a: null}") == {"a": None}


def test_merge__a_mapping_whose_type_changes_starts_afresh():
    assert merged("s: {type: gmm, queue: 100}", "s: {type: fixed, above: 0.7}") == {
        "s": {"type": "fixed", "above": 0.7}
    }
    assert merged("s: {type: gmm, queue: 100}", "s: {type: gmm, at: 1}") == {
        "s": {"type": "gmm", "queue": 100, "at": 1}
    }
    assert merged("s: {type: gmm, queue: 100}", "s: {queue: 5}") == {"s": {"type": "gmm", "queue": 5}}
    assert merged("s: {momentum: 1}", "s: {type: ema}") == {"s": {"momentum": 1, "type": "ema"}}


def test_merge__every_value_keeps_its_place():
    result = merge(tree("a: {b: 1, c: 2}", "base.yaml"), tree("a:\n  c: 3", "over.yaml"))
    inner = result.value["a"].value
    assert str(inner["b"].place) == "base.yaml:1:8"
    assert str(inner["c"].place) == "over.yaml:2:6"


def test_read_tree__later_bases_win_and_the_file_itself_wins_over_all(tmp_path: Path):
    write(
        tmp_path,
        one="{a: 1, b: 1, c: 1, d: 1}",
        two="{b: 2, c: 2, e: {f: 2}}",
        mine="extends: [one.yaml, two.yaml]\nc: 3\ne: {g: 3}",
    )
    assert read_tree(tmp_path / "mine.yaml").plain == {"a": 1, "b": 2, "c": 3, "d": 1, "e": {"f": 2, "g": 3}}


def test_read_tree__bases_are_relative_to_the_file_that_names_them(tmp_path: Path):
    (tmp_path / "bases" / "deep").mkdir(parents=True)
    write(tmp_path / "bases" / "deep", root="a: 1")
    write(tmp_path / "bases", middle="extends: deep/root.yaml\nb: 2")
    write(tmp_path, mine="extends: bases/middle.yaml")
    assert read_tree(tmp_path / "mine.yaml").plain == {"a": 1, "b": 2}


def test_read_tree__one_base_reached_twice_is_no_circle(tmp_path: Path):
    write(
        tmp_path, root="a: 1", one="extends: root.yaml", two="extends: root.yaml", mine="extends: [one.yaml, two.yaml]"
    )
    assert read_tree(tmp_path / "mine.yaml").plain == {"a": 1}


def test_read_tree__a_circle_is_refused_with_its_chain(tmp_path: Path):
    write(tmp_path, one="extends: two.yaml", two="\nextends: [three.yaml]", three="extends: two.yaml")
    with pytest.raises(RecipeError) as refusal:
        read_tree(tmp_path / "one.yaml")
    place = tmp_path / "three.yaml"
    text = f"{place}:1:10 extends: this recipe extends itself: two.yaml -> three.yaml -> two.yaml"
    assert str(refusal.value) == text


def test_read_tree__mistakes_of_all_files_are_shown_together(tmp_path: Path):
    write(tmp_path, one="a: 1\na: 2", mine="extends: [one.yaml, gone.yaml, 5]")
    with pytest.raises(RecipeError) as refusal:
        read_tree(tmp_path / "mine.yaml", ["nothing"])
    lines = str(refusal.value).splitlines()
    assert [line.partition(" ")[2].partition(":")[0] for line in lines[1:]] == ["extends.1", "extends.2", "a"]
    assert lines[0] == "--set nothing: nothing: write it as `a.b=value`"
    assert lines[1].startswith(f"{tmp_path / 'mine.yaml'}:1:21 extends.1: there is no recipe 'gone.yaml'")


def test_override__the_value_is_yaml():
    assert changed("a: 1", "a=1e-4") == {"a": 1e-4}
    assert changed("a: 1", "a=[x, 2]") == {"a": ["x", 2]}
    assert changed("a: 1", "a=x=y") == {"a": "x=y"}
    assert changed("a: 1", "a=") == {"a": None}


def test_override__makes_the_mappings_on_the_way():
    assert changed("a: 1", "b.c.d=2", "b.c.e=3") == {"a": 1, "b": {"c": {"d": 2, "e": 3}}}
    assert changed("a: 1", "a.b=2") == {"a": {"b": 2}}


def test_override__items_of_lists_by_index():
    text = "m: {s: [{type: x, draws: 1}, {type: y}]}"
    assert changed(text, "m.s.0.draws=5") == {"m": {"s": [{"type": "x", "draws": 5}, {"type": "y"}]}}
    assert changed(text, "m.s.1=z") == {"m": {"s": [{"type": "x", "draws": 1}, "z"]}}


def test_override__another_type_starts_afresh():
    assert changed("s: {type: gmm, queue: 1}", "s.type=fixed", "s.above=0.7") == {"s": {"type": "fixed", "above": 0.7}}


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a", "--set a: a: write it as `a.b=value`"),
        ("=1", "--set =1: write it as `a.b=value`"),
        ("a..b=1", "--set a..b=1: a..b: write it as `a.b=value`"),
        ("s.2=1", "--set s.2=1: s.2: '2' is no item of this list of 2; items count from 0"),
        ("s.x.y=1", "--set s.x.y=1: s.x.y: 'x' is no item of this list of 2; items count from 0"),
        ("a=[", "--set a=[: a: this is not YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_override__a_mistake_names_the_override(text: str, mistake: str):
    mistakes: list[Mistake] = []
    written = tree("{a: 1, s: [1, 2]}")
    assert override(written, text, mistakes).plain == written.plain
    assert len(mistakes) == 1
    assert str(mistakes[0]).startswith(mistake)


def test_override__a_mapping_that_it_only_changes_keeps_its_place():
    written = override(tree("e: {a: 1}"), "e.b=2", [])
    assert str(written.value["e"].key) == "a.yaml:1:1"
    assert str(written.value["e"].value["b"].place) == "--set e.b=2"


def test_read_tree__many_ways_to_one_base_are_as_quick_as_one(tmp_path: Path):
    write(tmp_path, r0="a: 0", **{f"r{n}": f"extends: [r{n - 1}.yaml, r{n - 1}.yaml]\nb{n}: 1" for n in range(1, 60)})
    assert len(read_tree(tmp_path / "r59.yaml").plain) == 60


def test_read_tree__more_files_in_a_row_than_may_be_are_refused_where_it_happens(tmp_path: Path):
    write(tmp_path, **{f"r{n}": f"extends: r{n + 1}.yaml" for n in range(1500)})
    with pytest.raises(RecipeError) as refusal:
        read_tree(tmp_path / "r0.yaml")
    text = "more than 100 recipes extend one another up to here"
    assert str(refusal.value) == f"{tmp_path / 'r99.yaml'}:1:10 extends: {text}"


def test_override__of_too_many_levels_is_refused():
    mistakes: list[Mistake] = []
    override(tree("a: 1"), ".".join("a" * 1200) + "=1", mistakes)
    assert [mistake.text for mistake in mistakes] == ["nested in more than 100 levels"]
