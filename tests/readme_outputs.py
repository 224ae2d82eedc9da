"""Rewrite the generated parts of README.md and the guide from real runs.

``python -m tests.readme_outputs`` replaces the outputs of commands that have changed, the command
table of README.md and the page ``commands``. Names of pages as arguments select pages.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import click

from batchgen.cli.main import cli
from batchgen.simulator.__main__ import main as serve
from tests.support import pages

WIDTH: Final = 100
"""Columns of the help texts."""

_TABLE: Final = re.compile(r"(?<=<!-- commands -->\n).*?(?=\n\n)", re.DOTALL)


def command_table() -> str:
    """Return one table row per command, from the first sentence of its help."""
    rows = [
        f"| [`{name}`](batchgen/guide/commands.md#batchgen-{name}) | {_summary(command)} |"
        for name, command in sorted(_commands().items())
    ]
    return "\n".join(["| command | |", "|---|---|", *rows])


def commands_page() -> str:
    """Return the page ``commands``: the help of every command."""
    return "\n".join(
        [
            "# Commands",
            "",
            "Every command with its arguments and options, as `--help` prints them.",
            "",
            "Written by `python -m tests.readme_outputs`; do not edit.",
            "",
            "```text",
            _help(cli, "batchgen"),
            "```",
            *_sections(),
            "",
        ]
    )


def _sections() -> Iterator[str]:
    for name, command in sorted(_commands().items()):
        yield f"\n## batchgen {name}\n\n```text"
        yield _help(serve if name == "serve" else command, f"batchgen {name}")
        yield "```"


def _commands() -> Mapping[str, click.Command]:
    assert isinstance(cli, click.Group)
    return cli.commands


def _summary(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split()).replace("|", "\\|")


def _help(command: click.Command, name: str) -> str:
    # The real terminal must not decide about the width.
    with click.Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    ) as context:
        return command.get_help(context)


def with_command_table(text: str) -> str:
    """Return README.md with the current table of commands."""
    return _TABLE.sub(lambda _: command_table(), text)


def main(names: list[str]) -> None:
    """Rewrite the named pages, or all of them."""
    pages.PAGES["commands"].write_text(commands_page(), encoding="utf-8")
    for name in names or pages.PAGES:
        text = before = pages.read(name)
        for scenario in pages.scenarios(text):
            with tempfile.TemporaryDirectory() as directory:
                text = pages.refreshed(text, scenario, Path(directory))
        text = with_command_table(text)
        pages.PAGES[name].write_text(text, encoding="utf-8")
        print(f"{name}: {'rewritten' if text != before else 'up to date'}")


if __name__ == "__main__":
    main(sys.argv[1:])
