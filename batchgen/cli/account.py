"""Commands about money and models of a provider's account: budget, prices, models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchgen.cli.completion import complete_model
from batchgen.cli.options import (
    db_option,
    json_option,
    manifest_argument,
    option,
)

if TYPE_CHECKING:
    from batchgen.errors import ExitCode

_provider_option = option(
    "--provider",
    metavar="NAME",
    show_default="the manifest's, else crazyrouter",
    help="Choose the provider: crazyrouter, openai or local.",
)


@click.command()
@db_option
@json_option
@option("--day", metavar="DOLLARS", help="Set the budget of a day (UTC); none removes it.")
@option("--month", metavar="DOLLARS", help="Set the budget of a month (UTC); none removes it.")
def budget(db: Path | None, as_json: bool, day: str | None, month: str | None) -> ExitCode:
    """Show or set the daily and monthly budgets of a ledger.

    They limit all batches of the ledger together.
    """
    from batchgen.commands.budget import budget as command

    return command(db, day=day, month=month, as_json=as_json)


@click.command()
@manifest_argument
@_provider_option
@option(
    "--model",
    metavar="PATTERN",
    shell_complete=complete_model,
    help="Select models by name, such as 'gpt-*'; '*' lists all.",
)
@option("--offline", is_flag=True, help="Show the newest stored list; fetch nothing.")
@db_option
@json_option
def prices(
    manifest: Path | None,
    provider: str | None,
    model: str | None,
    offline: bool,
    db: Path | None,
    as_json: bool,
) -> ExitCode:
    """Show the price list of a provider."""
    from batchgen.commands.prices import prices as command

    return command(manifest, db, provider=provider, model=model, offline=offline, as_json=as_json)


@click.command()
@manifest_argument
@_provider_option
@json_option
def models(manifest: Path | None, provider: str | None, as_json: bool) -> ExitCode:
    """List the models that your API key can use.

    With MANIFEST, check the models that it needs, and exit with 1 if one is missing.
    """
    from batchgen.commands.models import models as command

    return command(manifest, provider=provider, as_json=as_json)
