"""Every command that prints results can print JSON, and every option shows its help."""

from __future__ import annotations

import click
import pytest

from batchgen.cli.main import cli

WITHOUT_JSON = {
    "completion",  # prints a script
    "schema",  # prints JSON in any case
    "serve",  # has the options of the local endpoint
}


@pytest.mark.parametrize("name", sorted(set(cli.commands) - WITHOUT_JSON))
def test_commands_that_print_have_json(name: str) -> None:
    names = {name for parameter in cli.commands[name].params for name in parameter.opts}
    assert "--json" in names


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_options_have_help(name: str) -> None:
    options = [one for one in cli.commands[name].params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []
