"""The entry point of the command line: runs a command and turns errors into exit codes.

Commands import what they need when they are called, so that ``--help`` and ``status`` start fast.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any, Final

import click

from batchgen.cli import account, fix, look, make, pages, tools
from batchgen.console.standard_streams import discard_output, lost_output, prepare_streams
from batchgen.errors import BatchgenError, ExitCode, message_of
from batchgen.version import __version__

_GROUPS: Final[dict[str, list[click.Command]]] = {
    "Make": [make.init, make.check, make.plan, make.try_, make.run, make.resume],
    "Look": [look.status, look.report, pages.review, pages.gallery, look.cost],
    "Fix": [
        fix.retry,
        fix.acknowledge,
        fix.rollback,
        fix.verify,
        fix.reconcile,
        fix.prune,
        fix.export,
    ],
    "Account": [account.budget, account.prices, account.models],
    "Tools": [tools.serve, tools.schema, tools.guide, tools.completion],
}
"""The commands by the heading under which ``--help`` lists them."""


_WHOLE: Final = 200
"""More characters than the first sentence of any help has: lines wrap, and none is cut."""


class _ReaderGone(Exception):
    """The program that reads our output closed it, as `head` does."""


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as exc:
            # Click itself would exit with 1, which means that some jobs failed.
            raise _ReaderGone from exc

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for title, commands in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (f"{command.name:<{width}}", command.get_short_help_str(_WHOLE))
                        for command in commands
                    ]
                )


@click.group(
    cls=_Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@click.version_option(__version__, "-V", "--version", prog_name="batchgen")
def cli() -> None:
    """Generate thousands of images from a YAML manifest.

    Every paid request is recorded before it is sent, so that nothing is paid for twice and no
    result is lost. Start with `batchgen init` and `batchgen run`; they need no API key.

    \b
    Exit codes: 0 all done; 1 some jobs failed, blocked or uncertain; 2 bad manifest,
    settings or usage; 3 stopped by budget, quota, key or breaker; 4 a bug;
    75 another run holds this batch; 130/143 stopped by a signal, state safe.
    """
    from batchgen.ledger.busy import DEFAULT_WAIT_S, patience
    from batchgen.session.settings import Environment

    def report(text: str) -> None:
        from batchgen.console.progress import write_line

        write_line(sys.stderr, text)

    wait_s = Environment.load().ledger_wait_s
    patience.wait_s = DEFAULT_WAIT_S if wait_s is None else wait_s
    patience.report = report


for _commands in _GROUPS.values():
    for _command in _commands:
        cli.add_command(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; expected errors show no traceback.

    The exit code is never 0 if output was lost.
    """
    prepare_streams()
    code = _run(arguments)
    lost = lost_output()
    if lost is None:
        return code
    click.echo(f"stdout: the output could not be written: {lost}", err=True)
    return ExitCode.STOPPED if code == ExitCode.DONE else code


def _run(arguments: list[str] | None) -> int:
    try:
        Path.cwd()
    except FileNotFoundError:
        click.echo("the current directory was removed; change into one that exists", err=True)
        return ExitCode.USAGE
    try:
        code = cli.main(args=arguments, prog_name="batchgen", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        if isinstance(exc, click.NoSuchOption):
            _show_files(sys.argv[1:] if arguments is None else arguments)
        return ExitCode.USAGE
    except click.Abort:
        return ExitCode.INTERRUPTED
    except BatchgenError as exc:
        click.echo(message_of(exc), err=True)
        return exc.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except _ReaderGone:
        discard_output()
        return ExitCode.DONE
    except Exception as exc:
        return _unexpected(exc)
    return code if isinstance(code, int) else ExitCode.DONE


def _show_files(arguments: list[str]) -> None:
    """Say how to name files that were read as options."""
    for argument in arguments:
        if argument.startswith("-") and os.path.lexists(argument):
            click.echo(f"{argument}: a file; expected {shlex.quote(f'./{argument}')}", err=True)


def _unexpected(exc: Exception) -> ExitCode:
    """Report an error of the operating system, or a bug in batchgen."""
    # Imported here because only unexpected errors need them.
    import traceback

    from batchgen.system.os_errors import as_stopped_error

    refused = as_stopped_error(exc)
    if refused is not None:
        click.echo(str(refused), err=True)
        return refused.exit_code
    click.echo(traceback.format_exc(limit=-8), err=True)
    click.echo("this is a bug in batchgen; the ledger is safe, please report it", err=True)
    return ExitCode.BUG
