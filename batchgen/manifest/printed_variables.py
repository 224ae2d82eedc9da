"""Which variables a template prints without a way out for an empty one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from jinja2 import Environment, meta, nodes

from batchgen.manifest.table import normal_name

_PARSER: Final = Environment(autoescape=False)


def printed_names(text: str) -> frozenset[str]:
    """Return the normal names of the variables that a template prints as they are or filtered.

    A name counts as handled where an ``if`` or a condition looks at it, after ``or``, and where
    ``default`` replaces empty text: ``default('x', true)``.
    """
    tree = _PARSER.parse(text)
    known = frozenset(meta.find_undeclared_variables(tree))
    return frozenset(_of_statements(tree.body, frozenset(), known))


def _of_statements(
    body: list[nodes.Node], handled: frozenset[str], known: frozenset[str]
) -> Iterator[str]:
    for node in body:
        if isinstance(node, nodes.Output):
            for expression in node.nodes:
                yield from _of_expression(expression, handled, known)
        elif isinstance(node, nodes.If):
            inner = handled | _names_in(node.test)
            for branch in node.elif_:
                inner |= _names_in(branch.test)
            for branch in [node, *node.elif_]:
                yield from _of_statements(branch.body, inner, known)
            yield from _of_statements(node.else_, inner, known)
        elif isinstance(node, nodes.For):
            inner = handled | _names_in(node.iter)
            yield from _of_statements([*node.body, *node.else_], inner, known)
        elif isinstance(node, nodes.With | nodes.FilterBlock | nodes.Scope):
            yield from _of_statements(node.body, handled, known)


def _of_expression(
    node: nodes.Node | None, handled: frozenset[str], known: frozenset[str]
) -> Iterator[str]:
    if (name := _name_of(node)) is not None:
        if name not in handled and (isinstance(node, nodes.Getitem) or name in known):
            yield name
        return
    match node:
        case nodes.Filter(node=inner, name="default" | "d", args=args, kwargs=kwargs):
            replaces_empty = len(args) > 1 or any(one.key == "boolean" for one in kwargs)
            if not replaces_empty:
                yield from _of_expression(inner, handled, known)
        case nodes.Filter(node=inner):
            yield from _of_expression(inner, handled, known)
        case nodes.Call(node=nodes.Getattr(node=inner)):
            yield from _of_expression(inner, handled, known)
        case nodes.Concat(nodes=parts):
            for part in parts:
                yield from _of_expression(part, handled, known)
        case nodes.Add(left=left, right=right):
            yield from _of_expression(left, handled, known)
            yield from _of_expression(right, handled, known)
        case nodes.CondExpr(test=test, expr1=yes, expr2=no):
            within = handled | _names_in(test)
            yield from _of_expression(yes, within, known)
            yield from _of_expression(no, within, known)


def _name_of(node: nodes.Node | None) -> str | None:
    """Return the normal name of the column that an expression is; None if it is not a column."""
    match node:
        case nodes.Name(name=name):
            return str(name)
        case nodes.Getitem(node=nodes.Name(name="row"), arg=nodes.Const(value=str(column))):
            return normal_name(column)
    return None


def _names_in(node: nodes.Node) -> frozenset[str]:
    found = {_name_of(one) for one in [node, *node.find_all((nodes.Name, nodes.Getitem))]}
    return frozenset(name for name in found if name is not None)
