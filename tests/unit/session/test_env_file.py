"""The ``.env`` file: what is read of it, and what is skipped."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchgen.errors import SettingsError
from batchgen.session.settings import Environment
from tests.support.canary import CANARY as KEY


def environment(tmp_path: Path, text: str) -> Environment:
    """The environment with a .env file of this text."""
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    return Environment.load(tmp_path)


# .env


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("BG_TEST=plain", "plain"),
        ("  BG_TEST =  spaced  ", "spaced"),
        ("export BG_TEST=exported", "exported"),
        ('BG_TEST="in double quotes"', "in double quotes"),
        ("BG_TEST='in single quotes'", "in single quotes"),
        ('BG_TEST="it\'s"', "it's"),
        ("BG_TEST=a=b", "a=b"),
        ("BG_TEST=a#b", "a#b"),
        ("BG_TEST=value # a comment", "value"),
        ('BG_TEST="a # b" # a comment', "a # b"),
        ("BG_TEST=$HOME", "$HOME"),
        ("BG_TEST=m\u00fcnchen", "m\u00fcnchen"),
        ("BG_TEST=", None),
        ("BG_TEST=''", None),
        ("BG_TEST= # only a comment", None),
        ("# BG_TEST=commented", None),
        ("BG_TEST=first\nBG_TEST=last", "last"),
        ("\ufeffBG_TEST=after a byte order mark", "after a byte order mark"),
        ("BG_TEST=crlf\r\nBG_OTHER=x\r\n", "crlf"),
        ("\n\n  \n", None),
    ],
)
def test_a_line_of_an_env_file(line: str, value: str | None, tmp_path: Path) -> None:
    assert environment(tmp_path, line).get("BG_TEST") == value


@pytest.mark.parametrize(
    "line", ["no value", "=x", 'A="open', "A='open", "export", "spring.url jdbc"]
)
def test_a_strange_line_is_skipped_and_not_shown(line: str, tmp_path: Path) -> None:
    found = environment(tmp_path, f"\n# a comment\nA=1\n\n{line}{KEY}\nBG_TEST=kept\n")
    assert found.get("BG_TEST") == "kept"
    assert found.notices == (f"{tmp_path / '.env'}: skipped line 5: expected NAME=value",)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    "text",
    [
        "BG_TEST=kept\nspring.datasource.url=jdbc:x\n",
        'BG_TEST=kept\nHI="He said \\"hi\\""\n',
        'BG_TEST=kept\nPEM="-----BEGIN X\nabc\n-----END X"\n',
        'PEM="-----BEGIN X\nabc\n-----END X"\nBG_TEST=kept\n',
        'MAIL="A" <b@example.org>\nBG_TEST=kept\n',
    ],
)
def test_lines_of_other_programs_do_no_harm(text: str, tmp_path: Path) -> None:
    assert environment(tmp_path, text).get("BG_TEST") == "kept"


def test_skipped_lines_are_named_with_a_missing_key(tmp_path: Path) -> None:
    found = environment(tmp_path, "=K\n=x\nA=1\n=z\n=z\n")
    with pytest.raises(SettingsError, match=r"skipped lines 1, 2, 4 and 1 more: expected NAME"):
        found.key("K")


def test_settings_of_ours_count_in_the_environment_only(tmp_path: Path) -> None:
    """A file that came with a download must not choose files to write to."""
    found = environment(tmp_path, "BATCHGEN_LOG=/tmp/x\nBATCHGEN_DB=y\nexport BG_TEST=1\n")
    assert found.log_path(None) is None
    assert found.get("BATCHGEN_DB") is None
    (notice,) = found.notices
    assert notice.endswith(
        "ignored BATCHGEN_LOG, BATCHGEN_DB: settings count in the environment only"
    )


def test_the_environment_comes_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BG_TEST", "from the environment")
    assert environment(tmp_path, "BG_TEST=from the file").get("BG_TEST") == "from the environment"


def test_an_empty_variable_does_not_hide_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BG_TEST", "")
    assert environment(tmp_path, "BG_TEST=from the file").get("BG_TEST") == "from the file"


def test_without_a_file_there_is_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BG_TEST", "x")
    assert Environment.load(tmp_path).get("BG_TEST") == "x"
    assert Environment.load(tmp_path / "missing").get("BG_TEST") == "x"
    assert Environment.load().get("BG_TEST") == "x"


def test_a_file_does_not_change_the_environment_of_the_process(tmp_path: Path) -> None:
    environment(tmp_path, "BG_TEST=x")
    assert "BG_TEST" not in os.environ


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="can't be read"):
        Environment.load(tmp_path)
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").mkdir()
    with pytest.raises(SettingsError, match="can't be read"):
        Environment.load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_file_is_read_or_refused(tmp_path: Path, text: str) -> None:
    with suppress(SettingsError):
        environment(tmp_path, text)
