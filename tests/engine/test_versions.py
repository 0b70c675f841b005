import subprocess

import pytest

from ssodkit.engine import versions


def git(folder, *words):
    author = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(
        ["git", "-C", str(folder), *author, *words], capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "PROJECT", tmp_path)
    for name in ("ssodkit", "recipes", "runs"):
        (tmp_path / name).mkdir()
    (tmp_path / "ssodkit" / "a.py").write_text("a = 1\n")
    return tmp_path


def test_source__outside_a_checkout_is_unknown(checkout):
    assert versions.source() == {"commit": None, "clean": None}


def test_source__names_the_commit_and_sees_what_changed_the_program_since(checkout):
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "a")
    commit = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "runs" / "result.json").write_text("{}")
    assert versions.source() == {"commit": commit, "clean": True}
    (checkout / "recipes" / "mine.yaml").write_text("name: mine\n")
    assert versions.source() == {"commit": commit, "clean": False}


def test_source__in_a_checkout_without_a_commit_is_unknown(checkout):
    git(checkout, "init", "-q")
    assert versions.source() == {"commit": None, "clean": None}
