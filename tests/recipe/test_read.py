"""Reading YAML with places, and finding recipes."""

import re
from pathlib import Path

import pytest

from ssodkit.errors import RecipeError
from ssodkit.recipe.read import Mistake, Place, find_recipe, parse_yaml, read_recipe_file, refuse, shipped_folder


def read(text: str) -> object:
    mistakes: list[Mistake] = []
    written = parse_yaml(text, "a.yaml", mistakes)
    assert not mistakes
    return None if written is None else written.plain


def mistakes_in(text: str) -> list[str]:
    mistakes: list[Mistake] = []
    parse_yaml(text, "a.yaml", mistakes)
    return [str(mistake) for mistake in mistakes]


def test_parse_yaml__numbers_and_words_are_those_of_yaml_1_2():
    text = "[1, -2, 1e-4, 1E3, .5, 3., -.inf, true, null, ~, on, no, 0x1f, 1:30, 2026-11-20, '1', 33 %]"
    expected = [1, -2, 1e-4, 1000.0, 0.5, 3.0, -float("inf"), True, None, None]
    assert read(text) == [*expected, "on", "no", "0x1f", "1:30", "2026-11-20", "1", "33 %"]


def test_parse_yaml__empty_text_is_nothing():
    assert read("") is None
    assert read("# only a comment\n") is None


def test_parse_yaml__an_alias_repeats_its_anchor():
    assert read("a: &x {b: [1]}\nc: *x\n") == {"a": {"b": [1]}, "c": {"b": [1]}}


def test_parse_yaml__every_key_and_value_has_its_place():
    written = parse_yaml("a:\n  b: [1, two]\n", "a.yaml", [])
    assert written is not None
    inner = written.value["a"]
    assert inner.key == Place("a.yaml", 1, 1)
    assert inner.value["b"].key == Place("a.yaml", 2, 3)
    assert [str(item.place) for item in inner.value["b"].value] == ["a.yaml:2:7", "a.yaml:2:10"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: 1\nb: 2\na: 3", "a.yaml:3:1 a: this key stands twice; first in line 1"),
        ("a: {b: 1, b: 2}", "a.yaml:1:11 a.b: this key stands twice; first in line 1"),
        ("a: &x [*x]", "a.yaml:1:4 a.0: this alias contains itself"),
        ("a: !!python/name:os.system x", "a.yaml:1:4 a: the tag 'tag:yaml.org,2002:python/name:os.system' has no mea"),
        ("a: !!int x", "a.yaml:1:4 a: the tag 'tag:yaml.org,2002:int' has no meaning here"),
        ("a:\n  1: x", "a.yaml:2:3 a: a key is text; put it in quotes"),
        ("[1]: x", "a.yaml:1:1: a key is text; put it in quotes"),
        ("a: [1", "a.yaml:1:6: this is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "a.yaml:1:5: this is not YAML: mapping values are not allowed here"),
        ("a: *x", "a.yaml:1:4: this is not YAML: found undefined alias 'x'"),
        ("a: 1\n---\nb: 2", "a.yaml:2:1: this is not YAML: but found another document"),
        ("a: \x07", "a.yaml:1:1: this is not YAML: unacceptable character"),
        ('a: "\\x07"', "a.yaml:1:4 a: this text holds the character U+0007, which no file can hold"),
        ('a: "\\U00ffffff"', "a.yaml:1:1: this is not YAML: an escape or a version has too large a number"),
        ("a: " + "9" * 5000, "a.yaml:1:4 a: this whole number has more than 64 bits; no field takes one"),
        ("a:\n  b: " + "[" * 1200, "a.yaml:2:104: nested in more than 100 levels"),
        ("- " * 1200, "a.yaml:1:201: nested in more than 100 levels"),
    ],
)
def test_parse_yaml__a_mistake_has_its_place(text: str, mistake: str):
    found = mistakes_in(text)
    assert len(found) == 1
    assert found[0].startswith(mistake)


def test_parse_yaml__goes_on_after_a_mistake():
    assert len(mistakes_in("a: 1\na: 2\nb: {c: 1, c: 2}")) == 2


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"- a", "is a mapping of keys"),
        (b"\xff\xfe\x00", "this file cannot be read: it is no UTF-8 text"),
    ],
)
def test_read_recipe_file__what_is_no_recipe_is_a_mistake_at_its_start(tmp_path: Path, content: bytes, mistake: str):
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    mistakes: list[Mistake] = []
    assert read_recipe_file(path, mistakes).value == {}
    assert [str(found).startswith(f"{path}:1:1: ") and mistake in str(found) for found in mistakes] == [True]


def test_read_recipe_file__places_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.yaml"
    path.write_text("a: 1")
    monkeypatch.chdir(tmp_path)
    assert str(read_recipe_file(path, []).value["a"].place) == "a.yaml:1:4"


def test_refuse__shows_all_mistakes_by_place_and_none_twice():
    second, first = Mistake(Place("a", 10, 2), "k", "late"), Mistake(Place("a", 9, 30), "", "early")
    with pytest.raises(RecipeError) as refusal:
        refuse([second, first, second])
    assert str(refusal.value) == "a:9:30: early\na:10:2 k: late"
    refuse([])


def test_mistake__an_override_has_no_line():
    assert str(Mistake(Place("--set a=1"), "a", "is wrong")) == "--set a=1: a: is wrong"


def test_find_recipe__a_path_is_relative_to_the_folder(tmp_path: Path):
    (tmp_path / "mine.yaml").write_text("")
    assert find_recipe("mine.yaml", tmp_path) == tmp_path / "mine.yaml"
    assert find_recipe(str(tmp_path / "mine.yaml"), Path.cwd()) == tmp_path / "mine.yaml"


def test_find_recipe__a_shipped_recipe_needs_no_path(tmp_path: Path):
    bases = sorted((shipped_folder() / "bases" / "detectors").glob("*.yaml"))
    assert bases
    name = f"bases/detectors/{bases[0].stem}"
    assert find_recipe(name, tmp_path) == find_recipe(f"{name}.yaml", tmp_path) == bases[0]


@pytest.mark.parametrize("name", ["", ".", "..", "/", "bases"])
def test_find_recipe__a_folder_is_no_recipe(tmp_path: Path, name: str):
    with pytest.raises(RecipeError, match=re.escape(f"there is no recipe '{name}'")):
        find_recipe(name, tmp_path)


def test_find_recipe__an_unknown_name_is_refused(tmp_path: Path):
    with pytest.raises(RecipeError, match="there is no recipe 'no_such_thing': no such file, and none of this name"):
        find_recipe("no_such_thing", tmp_path)


def test_parse_yaml__as_many_levels_as_may_be_are_read():
    assert read("[" * 100 + "]" * 100) is not None


def test_parse_yaml__what_aliases_repeat_counts_and_a_bomb_ends_with_one_sentence():
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    (mistake,) = mistakes_in("\n".join(lines))
    assert mistake.startswith("a.yaml:1:10 a5.")
    assert mistake.endswith("here the document passes 100,000 values, counting what aliases repeat")


def test_mistake__stays_in_one_line():
    assert str(Mistake(Place("a\nb", 1, 2), "k\te", "is '\ud800'\r")) == r"a\nb:1:2 k\te: is '\ud800'\r"
