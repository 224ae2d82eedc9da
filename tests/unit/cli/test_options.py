"""The command line: options reach the commands, and help reads well."""

from __future__ import annotations

import inspect
import re
import sys

import click
import pytest
from click.testing import CliRunner

from batchgen.cli.main import cli

COMMANDS = sorted(cli.commands)
UNPACK = re.compile(r"Unpack\[(\w+)\]")


def accepted(command: click.Command) -> set[str]:
    """Return the keywords that the function of a command accepts."""
    function = command.callback
    assert function is not None
    names = set[str]()
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.add(parameter.name)
            continue
        unpacked = UNPACK.fullmatch(parameter.annotation)
        assert unpacked is not None, f"{command.name}: options without types"
        names |= getattr(sys.modules[function.__module__], unpacked[1]).__required_keys__
    return names


@pytest.mark.parametrize("name", COMMANDS)
def test_options_match_the_typed_parameters(name: str) -> None:
    command = cli.commands[name]
    given = {option.name for option in command.params if option.expose_value}
    assert given - {"help"} == accepted(command)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_options_have_help_and_a_metavar_in_words(name: str) -> None:
    for option in cli.commands[name].params:
        if isinstance(option, click.Option):
            assert option.help is not None, option.opts
            assert option.help.endswith("."), option.opts
            assert "%" not in option.make_metavar(click.Context(cli.commands[name])), option.opts


def test_help_groups_all_commands() -> None:
    shown = CliRunner().invoke(cli, ["--help"], terminal_width=80).output
    headings = re.findall(r"^(\w+):$", shown, re.MULTILINE)
    assert headings == ["Options", "Make", "Look", "Fix", "Account", "Tools"]
    listed = re.findall(r"^  ([a-z]+) +[A-Z]", shown, re.MULTILINE)
    assert sorted(listed) == COMMANDS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "--since", "yesterday"], "not a date: 'yesterday'; expected a date such as"),
        (["retry", "b", "--since", "2026-11-28 06:00"], "expected a date such as 2026-11-28 or"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_dates_that_are_refused_show_an_example(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, arguments, terminal_width=100)
    assert done.exit_code == 2
    assert message in done.output
