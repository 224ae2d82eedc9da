"""Find the variables without which a template cannot be rendered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from jinja2 import meta, nodes


class RequiredNames(NamedTuple):
    """Names that a template uses and has no way out for."""

    variables: frozenset[str] = frozenset()
    row: frozenset[str] = frozenset()
    """Names of the file: those of ``row["..."]``."""


def required_names(tree: nodes.Template) -> RequiredNames:
    """Return the names that must exist, wherever in the template they are.

    A name with ``default``, or tested with ``is defined``, need not exist.
    """
    optional = set(_optional(tree))
    variables = meta.find_undeclared_variables(tree) - {
        name for name, column in optional if column is None
    }
    columns = {
        column
        for node in tree.find_all(nodes.Getitem)
        if (column := _column_of(node)) is not None and ("row", column) not in optional
    }
    return RequiredNames(frozenset(variables), frozenset(columns))


def _optional(tree: nodes.Template) -> Iterator[tuple[str, str | None]]:
    """Yield the variables that may be missing, each with the column if it is one of ``row``."""
    for node in tree.find_all((nodes.Filter, nodes.Test)):
        match node:
            case nodes.Filter(node=inner, name="default" | "d"):
                yield from _name_of(inner)
            case nodes.Test(node=inner, name="defined" | "undefined"):
                yield from _name_of(inner)


def _name_of(node: nodes.Node | None) -> Iterator[tuple[str, str | None]]:
    if isinstance(node, nodes.Name):
        yield node.name, None
    elif (column := _column_of(node)) is not None:
        yield "row", column


def _column_of(node: nodes.Node | None) -> str | None:
    """Return the column of ``row["..."]``; None for anything else.

    ``row.get`` and the like may be a method, so attributes do not count.
    """
    match node:
        case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(column))):
            return column
    return None
