"""Commands for tests, editors, shells and readers: serve, schema, guide, completion."""

from __future__ import annotations

import sys

import click

from batchgen.cli.completion import SHELLS, complete_topic, script
from batchgen.cli.options import json_option
from batchgen.errors import ExitCode


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def serve(arguments: tuple[str, ...]) -> None:
    """Run the local endpoint, a fake provider, as a server."""
    from batchgen.simulator.__main__ import main as endpoint

    endpoint.main(args=list(arguments), prog_name="batchgen serve")


@click.command()
def schema() -> ExitCode:
    """Print the JSON Schema of manifests, for editors."""
    from batchgen.commands.init import schema as command

    return command()


@click.command()
@click.argument("topic", required=False, shell_complete=complete_topic)
@json_option
def guide(topic: str | None, as_json: bool) -> ExitCode:
    """Print a page of the user guide, or list its topics."""
    from batchgen.commands.guide import guide as command

    return command(topic, as_json=as_json)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> ExitCode:
    """Print a script that completes commands, batches, keys and models.

    \b
    bash: add to ~/.bashrc:  eval "$(batchgen completion bash)"
    zsh:  add to ~/.zshrc:   eval "$(batchgen completion zsh)"
    fish: run once:  batchgen completion fish > ~/.config/fish/completions/batchgen.fish
    """
    sys.stdout.write(script(shell, click.get_current_context().find_root().command) + "\n")
    return ExitCode.DONE
