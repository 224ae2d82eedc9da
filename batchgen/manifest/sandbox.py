"""Jinja environment of manifest templates: strict, sandboxed, bounded in time and memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any, Final, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes
from jinja2 import filters as jinja_filters
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from batchgen.text import known_names_hint, slug

MAX_CHARS: Final = 1_000_000
"""Of a rendered text, and of any text on the way there."""
MAX_RANGE: Final = 1_000
MAX_LOOPS: Final = 10_000
"""Turns of all loops of one rendering together."""
MAX_BITS: Final = 4_096
"""Of a whole number."""


PRINTED_AS_THEY_ARE: Final = frozenset({str, int, float})


class TemplateError(Exception):
    """A template that cannot be compiled, or not be rendered with these values."""


class UndefinedNameError(TemplateError):
    """A template uses a name that nothing is called."""


class NullValue(Undefined):
    """A value that is null."""

    __slots__ = ()

    def __str__(self) -> str:
        return self._fail_with_undefined_error()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, NullValue)

    def __hash__(self) -> int:
        return hash(None)


class _Missing(StrictUndefined):
    """A name, or a key of a mapping, that is not there."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint is None and isinstance(self._undefined_obj, dict):
            known = known_names_hint(str(self._undefined_name), map(str, self._undefined_obj))
            return f"no column {self._undefined_name!r}; {known}"
        return super()._undefined_message


class Limiter(NodeTransformer):
    """Puts loops and ``~`` under the limits; refuses recursion and methods that are not called."""

    def visit_Call(self, node: nodes.Call) -> nodes.Node:
        """Keep the method of a call as it is; everything else in the call is checked."""
        method = node.node
        if isinstance(method, nodes.Getattr | nodes.Getitem | nodes.Name):
            for child in method.iter_child_nodes():
                self.visit(child)
        else:
            node.node = self.visit(method)
        node.args = [self.visit(one) for one in node.args]
        for keyword in node.kwargs:
            self.visit(keyword)
        node.dyn_args = node.dyn_args and self.visit(node.dyn_args)
        node.dyn_kwargs = node.dyn_kwargs and self.visit(node.dyn_kwargs)
        return node

    def visit_Getattr(self, node: nodes.Getattr | nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx != "load" else _filter(node, "_no_method")

    visit_Getitem = visit_Getattr

    def visit_Name(self, node: nodes.Name) -> nodes.Node:
        is_global = node.ctx == "load" and node.name in GLOBALS
        return _filter(node, "_no_method") if is_global else node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("a prompt has no recursive loops", node.lineno)
        self.generic_visit(node)
        node.iter = _filter(cast("nodes.Expr", node.iter), "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "_concat")

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError(
            f"{type(node).__name__.lower()} is for web pages; a prompt cannot use it", node.lineno
        )

    visit_Macro = visit_CallBlock = visit_Include = visit_Import = _refuse
    visit_FromImport = visit_Extends = visit_Block = _refuse


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    made.set_environment(ENVIRONMENT)
    return made


def _no_method(value: object) -> object:
    """Refuse a method in place of its result: printed, it would differ with every process."""
    if callable(value) and not isinstance(value, Undefined | LoopContext):
        name = getattr(value, "__name__", "this").strip("_")
        raise TemplateError(f"{name} is a method; expected a call: {name}()")
    return value


@pass_context
def _counted(context: Context, items: Iterable[object]) -> Iterator[object]:
    # No template can name a variable with a space in it.
    turns: list[int] = context.vars.setdefault("loop turns", [0])
    for item in items:
        turns[0] += 1
        if turns[0] > MAX_LOOPS:
            raise OverflowError(f"the loops take more than {MAX_LOOPS:,} turns")
        yield item


def _bounded(chars: int) -> None:
    if chars > MAX_CHARS:
        raise OverflowError(f"the text grows beyond {MAX_CHARS:,} characters")


def bounded_concat(pieces: Iterable[str]) -> str:
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        _bounded(size)
        kept.append(piece)
    return "".join(kept)


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > MAX_RANGE:
        raise OverflowError(f"a range of more than {MAX_RANGE:,} numbers")
    return numbers


def _concat(values: list[object]) -> str:
    return bounded_concat(map(_printed, values))


def _join(values: Iterable[object], by: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        values = map(jinja_filters.make_attrgetter(ENVIRONMENT, attribute), values)
    texts = [_printed(value) for value in values]
    _bounded(sum(map(len, texts)) + len(by) * len(texts))
    return by.join(texts)


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    text = _printed(text)
    found = text.count(old) if count < 0 else min(count, text.count(old))
    _bounded(len(text) + found * (len(new) - len(old)))
    return text.replace(old, new, count)


_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\*|[0-9]{4})")


def _format(template: object, *values: object) -> str:
    text = _printed(template)
    if _WIDE_FORMAT.search(text):
        raise OverflowError("a width in the format is too large")
    return text % tuple(map(_formatted, values))


def _formatted(value: object) -> object:
    """Return a value for ``%``, which prints everything, as `_finalized` would print it."""
    return (
        value
        if isinstance(value, bool)
        else str(value)
        if isinstance(value, Undefined)
        else _finalized(value)
    )


def _round(value: float, precision: int = 0) -> float:
    if abs(precision) > 30:
        raise OverflowError("at most 30 digits can be rounded to")
    return round(value, precision)


def _printed(value: object) -> str:
    return str(_finalized(value))


def _of_text(text_filter: Callable[..., object]) -> Callable[..., object]:
    """Return a filter of Jinja that takes only what may be printed, and not its look in Python."""
    takes_environment = hasattr(text_filter, "jinja_pass_arg")

    @wraps(text_filter)
    def checked(*values: object, **options: object) -> object:
        at = 1 if takes_environment else 0
        return text_filter(*values[:at], _printed(values[at]), *values[at + 1 :], **options)

    return checked


def _finalized(value: object) -> object:
    """Return what is printed for a value. Raises TemplateError for lists and the like."""
    if type(value) in PRINTED_AS_THEY_ARE or isinstance(value, str | Undefined):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise TemplateError("a null value would be printed; use default('...') or an if")
    if isinstance(value, dict | list | tuple | Iterator):
        raise TemplateError(
            f"a {type(value).__name__} would be printed; pick one value, or use join(', ')"
        )
    raise TemplateError(f"a {type(value).__name__} would be printed; expected text or a number")


_TEXT_METHODS: Final = """
    capitalize casefold count endswith find isalnum isalpha isascii isdecimal isdigit islower
    isnumeric isspace istitle isupper lower lstrip partition removeprefix removesuffix rfind
    rpartition rsplit rstrip split splitlines startswith strip swapcase title upper
"""
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset(_TEXT_METHODS.split()),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
}
"""What values can do in a template; the rest could fill the memory, or is useless in prompts."""

_JINJA_FILTERS: Final = """
    abs count d default dictsort first float int items last length list map max min reject
    rejectattr reverse select selectattr sort sum unique
"""
"""Those that end soon; not ``random``, because a plan must be the same each time."""
_TEXT_FILTERS: Final = "capitalize lower striptags title trim truncate upper urlencode wordcount"
"""In Jinja, these print any value, such as a method with its place in memory."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with limits on what one expression can make."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(bounded_concat)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]  # data goes before methods: a key may be called "items"
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, LoopContext | Namespace):
            return super().is_safe_attribute(obj, attr, value)
        return any(isinstance(obj, kind) and attr in names for kind, names in _METHODS.items())

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        return self.undefined(
            f"{attribute!r} of a {type(obj).__name__} cannot be used in a template; "
            "there may be a filter for it, like {{ title | replace('a', 'b') }}",
            name=attribute,
            obj=obj,
            exc=SecurityError,
        )

    def wrap_str_format(self, value: Any) -> None:
        return None  # `format` is not an allowed method

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return _format(left, *(right if isinstance(right, tuple) else (right,)))
        _check_size(operator, left, right)
        return super().call_binop(context, operator, left, right)


def _check_size(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = {
            "*": left.bit_length() + right.bit_length(),
            "**": left.bit_length() * abs(right),
        }
        if bits.get(operator, 0) > MAX_BITS:
            raise OverflowError("the number grows too large")
        return
    sizes = [len(side) for side in (left, right) if isinstance(side, str | list | tuple)]
    if operator == "*" and sizes:
        times = left if isinstance(left, int) else right
        _bounded(sizes[0] * times if isinstance(times, int) else 0)
    else:
        _bounded(sum(sizes))


def _is_none(value: object) -> bool:
    return value is None or isinstance(value, NullValue)


def _environment() -> _Sandbox:
    environment = _Sandbox(
        autoescape=False,
        undefined=_Missing,
        finalize=_finalized,
        keep_trailing_newline=True,
        cache_size=0,
    )
    environment.filters = {name: jinja_filters.FILTERS[name] for name in _JINJA_FILTERS.split()}
    for name in _TEXT_FILTERS.split():
        environment.filters[name] = _of_text(jinja_filters.FILTERS[name])
    environment.filters |= {
        "format": _format,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "string": _printed,
        "slug": lambda value: slug(_printed(value)),
        "_concat": _concat,
        "_counted": _counted,
        "_no_method": _no_method,
    }
    environment.tests["none"] = _is_none
    environment.globals = {}
    return environment


GLOBALS: Final[Mapping[str, object]] = MappingProxyType({"range": _range, "namespace": Namespace})
ENVIRONMENT: Final = _environment()
