"""Define the command line of the local endpoint, ``python -m batchgen.simulator``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import click

from batchgen.simulator.faults import (
    FAULT_HELP,
    Behavior,
    BillAt,
    Fault,
    GeminiResponse,
    Idempotency,
    Response,
    TaskResponse,
)

F = TypeVar("F", bound=Callable[..., object])


class _Dollars(click.ParamType[int]):
    """Parse an amount in dollars into whole micro-dollars."""

    name = "dollars"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from batchgen.simulator.billing import parse_micros

        try:
            return parse_micros(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _fault_options(command: F) -> F:
    for fault in reversed(Fault):
        option = click.option(
            f"--{fault}",
            fault.name.lower(),
            type=float,
            default=0.0,
            metavar="SHARE",
            help=f"{FAULT_HELP[fault]}.",
        )
        command = option(command)
    return command


def _choices(names: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([name.value for name in names])


@click.command(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    help="Run the local endpoint: a strict fake provider on a loopback socket, with its own bill.",
)
@click.option("--host", default="127.0.0.1", help="Loopback IP address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; 0 takes a free one.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory of the bill and the result files.  [default: a new temporary one]",
)
@click.option("--key", help="Accept only this API key.  [default: any that starts with sk-]")
@click.option(
    "--price",
    type=_Dollars(),
    default="0.0377",
    help="Dollars per image of gpt-image-2.",
)
@click.option("--balance", type=_Dollars(), help="Balance in dollars.  [default: unlimited]")
@click.option("--block-word", default="forbidden-word", help="Block prompts that contain it.")
@click.option("--latency", type=float, default=0.0, help="Seconds per request.")
@click.option("--latency-jitter", type=float, default=0.0, help="Maximum extra latency in seconds.")
@click.option("--response", type=_choices(Response), default="url", help="Form of the images.")
@click.option(
    "--gemini-response",
    type=_choices(GeminiResponse),
    default="inline",
    help="Form of native Gemini's images.",
)
@click.option(
    "--task-response",
    type=_choices(TaskResponse),
    default="new",
    help="Form of task responses.",
)
@click.option("--task-latency", type=float, default=0.0, help="Seconds per video task.")
@click.option("--rate", type=float, default=0.0, help="Requests per minute; 0 is unlimited.")
@click.option("--burst", type=int, default=10, help="Requests that --rate allows at once.")
@click.option("--retry-after/--no-retry-after", default=False, help="Send Retry-After with a 429.")
@click.option("--url-ttl", type=float, default=0.0, help="Seconds until a URL expires; 0 is never.")
@click.option(
    "--download-faults",
    type=click.IntRange(min=0),
    default=0,
    help="Number of downloads, from the first, that may have a fault; 0 is unlimited.",
)
@click.option("--ping-interval", type=float, default=1.0, help="Seconds between stream pings.")
@click.option(
    "--bill-at",
    type=_choices(BillAt),
    default="work",
    help="When to charge.",
)
@click.option("--idempotency", type=_choices(Idempotency), default="none")
@click.option("--fast-images", is_flag=True, help="Draw once per size, for load tests.")
@click.option("--seed", type=int, default=0, help="Seed of the choice of faulty requests.")
@click.option("--fault-after", type=int, default=0, help="Requests before the first fault.")
@click.option("--log", is_flag=True, help="Log to stderr.")
@click.option("--stdin-lifeline", is_flag=True, help="Stop when stdin ends.")
@_fault_options
def main(
    *,
    host: str,
    port: int,
    state: Path | None,
    key: str | None,
    price: int,
    balance: int | None,
    block_word: str,
    log: bool,
    stdin_lifeline: bool,
    **switches: object,
) -> None:
    """Parse the options and serve until stopped."""
    # Imported here so that --help and usage errors do not load the server.
    from batchgen.simulator.local_only import check_loopback
    from batchgen.simulator.orders import Terms
    from batchgen.simulator.server import Place, serve

    try:
        behavior = Behavior().changed(switches)
        host = check_loopback(host)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    place = Place(
        host=host,
        port=port,
        state=state or Path(tempfile.mkdtemp(prefix="batchgen-endpoint-")),
    )
    terms = Terms(price=price, balance=balance, key=key, block_word=block_word)
    try:
        serve(place, terms=terms, behavior=behavior, log=log, stdin_lifeline=stdin_lifeline)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main(prog_name="python -m batchgen.simulator")
