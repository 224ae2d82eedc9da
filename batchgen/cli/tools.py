"""Commands for tests, editors and readers: serve, schema, guide."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
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
@click.argument("topic", required=False)
def guide(topic: str | None) -> ExitCode:
    """Print a page of the user guide, or list its topics."""
    from batchgen.commands.guide import guide as command

    return command(topic)
