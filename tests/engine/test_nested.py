from ssodkit.engine.nested import flatten


def test_flatten__has_a_dotted_key_for_every_leaf():
    assert flatten({"a": {"b": 1, "c": []}, "d": [2, {"e": 3}]}) == {"a.b": 1, "a.c": [], "d.0": 2, "d.1.e": 3}
