"""Complete batch names, keys, models and topics in a shell.

Completion never fails and prints no error: without a ledger or manifest it proposes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem, get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_BATCHGEN_COMPLETE"
_MAX_ITEMS: Final = 200
"""More proposals than anyone reads; a batch may have a million keys."""

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def script(shell: str, command: click.Command) -> str:
    """Return the text that a shell has to evaluate once per session."""
    found = get_completion_class(shell)
    assert found is not None, f"click has no completion for {shell}"
    return found(command, {}, "batchgen", VARIABLE).source()


def _completer(propose: Callable[[click.Context, str], Iterable[str]]) -> Completer:
    def complete(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
        items = []
        with suppress(Exception):
            for value in propose(ctx, begun):
                if value.startswith(begun):
                    items.append(CompletionItem(value))
                if len(items) == _MAX_ITEMS:
                    break
        return items

    return complete


def _ledger(ctx: click.Context) -> Path:
    from batchgen.session.settings import Environment

    return Environment.load().ledger_path(ctx.params.get("db"), None)


def _batches(ctx: click.Context, _: str) -> Iterable[str]:
    from batchgen.ledger.batches import batch_names
    from batchgen.ledger.database import open_for_reading

    with closing(open_for_reading(_ledger(ctx))) as conn:
        return batch_names(conn)


def _keys(ctx: click.Context, begun: str) -> Iterable[str]:
    from batchgen.ledger.batches import batch_names, find_batch, keys_with_prefix
    from batchgen.ledger.database import open_for_reading

    with closing(open_for_reading(_ledger(ctx))) as conn:
        name = ctx.params.get("name")
        names = [name] if name else batch_names(conn)
        ids = [find_batch(conn, one).id for one in names]
        return [key for batch in ids for key in keys_with_prefix(conn, batch, begun, _MAX_ITEMS)]


def _models(ctx: click.Context, _: str) -> Iterable[str]:
    from batchgen.providers.registry import PROFILES

    return sorted({model for profile in PROFILES.values() for model in profile.known_models()})


def _topics(ctx: click.Context, _: str) -> Iterable[str]:
    from batchgen.commands.guide import topics

    return topics()


complete_batch: Final = _completer(_batches)
complete_key: Final = _completer(_keys)
complete_model: Final = _completer(_models)
complete_topic: Final = _completer(_topics)
