"""Jinja templates and expressions of a manifest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple, cast

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.parser import Parser

from batchgen.manifest.required_names import RequiredNames, required_names
from batchgen.manifest.sandbox import (
    ENVIRONMENT,
    GLOBALS,
    MAX_CHARS,
    PRINTED_AS_THEY_ARE,
    Limiter,
    NullValue,
    TemplateError,
    UndefinedNameError,
    bounded_concat,
)
from batchgen.text import known_names_hint


class Filling(NamedTuple):
    """A template that only puts names into text."""

    format: str
    """For the ``%`` operator."""
    names: tuple[str, ...]
    """The values it takes, in their order."""


class Template:
    """A text with ``{{ }}`` and ``{% %}`` in it, or a plain one, which costs nothing to render."""

    __slots__ = (
        "_compiled", "_is_of_one", "_pick", "constant", "filling", "names", "required", "text"
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: frozenset[str] = frozenset()
        """Variables it may ask for."""
        self.required = RequiredNames()
        """Variables and columns that must exist."""
        self.constant: str | None = None
        """The text, where there is nothing to render."""
        self.filling: Filling | None = None
        """How to fill in names, where the template only puts them into text; else None."""
        self._pick: Callable[[Mapping[str, object]], Any] | None = None
        self._is_of_one = False
        if is_plain(text):
            self.constant = text
            return
        found = _compiled(lambda: ENVIRONMENT.parse(text))
        self.names, self.required, self._compiled = found.names, found.required, found.template
        self._find_format(found.tree)

    def _find_format(self, tree: nodes.Template) -> None:
        """Most templates only put names into text; ``%`` does that ten times faster."""
        pieces, names = [], []
        for output in tree.body:
            for node in output.nodes if isinstance(output, nodes.Output) else [output]:
                if isinstance(node, nodes.TemplateData):
                    pieces.append(node.data.replace("%", "%%"))
                elif isinstance(node, nodes.Name):
                    pieces.append("%s")
                    names.append(node.name)
                else:
                    return
        if names:
            self.filling = Filling("".join(pieces), tuple(names))
            self._pick = itemgetter(*names)
            self._is_of_one = len(names) == 1

    def render(self, values: Mapping[str, object]) -> str:
        """Fill in ``values``, which must have gone through `present`.

        Raises UndefinedNameError, or TemplateError for everything else that goes wrong.
        """
        if self.constant is not None:
            return self.constant
        if self.filling is not None and self._pick is not None:
            try:
                found = self._pick(values)
            except KeyError:
                pass  # the way below words the message
            else:
                kinds = (type(found),) if self._is_of_one else map(type, found)
                if PRINTED_AS_THEY_ARE.issuperset(kinds):
                    text: str = self.filling.format % found
                    if len(text) <= MAX_CHARS:
                        return text
        try:
            context = self._compiled.new_context(_with_globals(self.names, values), shared=True)
            return bounded_concat(self._compiled.root_render_func(context))
        except Exception as error:
            raise _failure(error, values) from None


class Expression:
    """A Jinja expression, as in ``where``."""

    __slots__ = ("_compiled", "_names", "required")

    def __init__(self, text: str) -> None:
        if text.lstrip().startswith("{{"):
            raise TemplateError("expected an expression without {{ }}")
        found = _compiled(lambda: _condition(text))
        self._names, self.required, self._compiled = found.names, found.required, found.template

    def is_true(self, values: Mapping[str, object]) -> bool:
        """Return whether it is true for ``values``; raises as `Template.render`."""
        try:
            context = self._compiled.new_context(_with_globals(self._names, values), shared=True)
            return any(self._compiled.root_render_func(context))
        except Exception as error:
            raise _failure(error, values) from None


def compile_template(text: str) -> Template:
    """Raise TemplateError, with the template's line, for invalid syntax."""
    return Template(text)


def compile_expression(text: str) -> Expression:
    """Raise TemplateError for invalid syntax."""
    return Expression(text)


def is_plain(text: str) -> bool:
    """Return whether a text contains no template syntax."""
    return "{" not in text or not ("{{" in text or "{%" in text or "{#" in text)


def present(values: Mapping[str, object]) -> Mapping[str, object]:
    """Values as templates may see them.

    A null would be printed as the word "None" into a prompt that is paid for. So it is replaced by
    something that is false, that ``default`` replaces, and that refuses to be printed.
    """
    if _FREE_OF_NULL.issuperset(map(type, values.values())):
        return values
    return {name: _without_null(value, name) for name, value in values.items()}


_FREE_OF_NULL: Final = frozenset({str, int, float, bool, bytes})


def _without_null(value: object, name: str) -> object:
    if value is None:
        return NullValue(
            f"column {name!r} is empty (null) in this row; "
            f"leave such rows out, or use {{{{ {name} | default('...') }}}}"
        )
    if isinstance(value, dict):
        return {key: _without_null(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_null(inner, f"{name}[{at}]") for at, inner in enumerate(value)]
    return value


_UNDEFINED_NAME = re.compile(r"'(.+)' is undefined")


def _failure(error: Exception, values: Mapping[str, object]) -> TemplateError:
    if isinstance(error, TemplateError):
        return error
    message = str(error)
    if isinstance(error, UndefinedError):
        name = _UNDEFINED_NAME.fullmatch(message)
        if name and name[1] not in values:
            return UndefinedNameError(f"no column {name[1]!r}; {known_names_hint(name[1], values)}")
        return TemplateError(message)
    if isinstance(error, SecurityError | OverflowError):
        return TemplateError(message)
    return TemplateError(f"the template fails: {message or type(error).__name__}")


_NO_FILTER = re.compile(r"No filter named '(.+)'")


class _Compiled(NamedTuple):
    tree: nodes.Template
    names: frozenset[str]
    required: RequiredNames
    template: JinjaTemplate


def _compiled(parse: Callable[[], nodes.Template]) -> _Compiled:
    try:
        tree = parse()
        names = frozenset(meta.find_undeclared_variables(tree))
        required = required_names(tree)
        return _Compiled(tree, names, required, ENVIRONMENT.from_string(Limiter().visit(tree)))
    except TemplateError:
        raise
    except TemplateSyntaxError as error:
        problem = error.message or "invalid syntax"
        if isinstance(error, TemplateAssertionError) and (name := _NO_FILTER.match(problem)):
            problem = f"no filter {name[1]!r}; {known_names_hint(name[1], ENVIRONMENT.filters)}"
        raise TemplateError(f"line {error.lineno} of the template: {problem}") from None
    except RecursionError:
        raise TemplateError("the template is nested too deep") from None
    except Exception as error:  # Jinja lets errors of Python's own compiler through
        raise TemplateError(f"the template cannot be compiled: {error}") from None


def _condition(expression: str) -> nodes.Template:
    """Return a template that renders to text if the expression is true, else to nothing."""
    parser = Parser(ENVIRONMENT, expression, state="variable")
    test = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        raise TemplateSyntaxError(f"unexpected {token.value!r}", token.lineno)
    text = nodes.Output([nodes.TemplateData("true")], lineno=1)
    tree = nodes.Template([nodes.If(test, [text], [], [], lineno=1)], lineno=1)
    tree.set_environment(ENVIRONMENT)
    return tree


def _with_globals(names: frozenset[str], values: Mapping[str, object]) -> dict[str, Any]:
    if names.isdisjoint(GLOBALS):
        # Jinja only reads it, and copying 40 columns would cost more than most templates.
        return cast("dict[str, Any]", values)
    return {**GLOBALS, **values}
