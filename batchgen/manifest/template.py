"""Jinja2 templates and expressions of a manifest: strict, in a sandbox, and unable to run away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, cast

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2 import Template as JinjaTemplate
from jinja2 import filters as jinja_filters
from jinja2.exceptions import SecurityError, TemplateAssertionError
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

from batchgen.text import closest_match, slug

MAX_CHARS: Final = 1_000_000
"""Of a rendered text, and of any text on the way there."""
MAX_RANGE: Final = 1_000
MAX_LOOPS: Final = 10_000
"""Turns of all loops of one rendering together."""
MAX_BITS: Final = 4_096
"""Of a whole number."""


class TemplateError(Exception):
    """A template that cannot be compiled, or not be rendered with these values."""


class UndefinedNameError(TemplateError):
    """A template uses a name that nothing is called."""


class Template:
    """A text with ``{{ }}`` and ``{% %}`` in it, or a plain one, which costs nothing to render."""

    __slots__ = ("_compiled", "_format", "_is_of_one", "_pick", "constant", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: frozenset[str] = frozenset()
        """Variables it may ask for."""
        self.constant: str | None = None
        """The text, where there is nothing to render."""
        self._format: str | None = None
        self._pick: Callable[[Mapping[str, object]], Any] | None = None
        self._is_of_one = False
        if is_plain(text):
            self.constant = text
            return
        tree, self.names, self._compiled = _compiled(lambda: _ENVIRONMENT.parse(text))
        self._find_format(tree)

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
            self._format, self._pick = "".join(pieces), itemgetter(*names)
            self._is_of_one = len(names) == 1

    def render(self, values: Mapping[str, object]) -> str:
        """Fill in ``values``, which must have gone through `present`.

        Raises UndefinedNameError, or TemplateError for everything else that goes wrong.
        """
        if self.constant is not None:
            return self.constant
        if self._format is not None and self._pick is not None:
            try:
                found = self._pick(values)
            except KeyError:
                pass  # the way below words the message
            else:
                kinds = (type(found),) if self._is_of_one else map(type, found)
                if _PRINTED_AS_THEY_ARE.issuperset(kinds):
                    text: str = self._format % found
                    if len(text) <= MAX_CHARS:
                        return text
        try:
            context = self._compiled.new_context(_with_globals(self.names, values), shared=True)
            return _bounded_concat(self._compiled.root_render_func(context))
        except Exception as error:
            raise _failure(error, values) from None


class Expression:
    """A Jinja expression, as in ``where``."""

    __slots__ = ("_compiled", "_names")

    def __init__(self, text: str) -> None:
        if text.lstrip().startswith("{{"):
            raise TemplateError("an expression stands here as it is, without {{ }}")
        _, self._names, self._compiled = _compiled(lambda: _condition(text))

    def is_true(self, values: Mapping[str, object]) -> bool:
        """Whether it holds for ``values``; raises as `Template.render`."""
        try:
            context = self._compiled.new_context(_with_globals(self._names, values), shared=True)
            return any(self._compiled.root_render_func(context))
        except Exception as error:
            raise _failure(error, values) from None


def compile_template(text: str) -> Template:
    """Raises TemplateError, with the template's line, for what is no template."""
    return Template(text)


def compile_expression(text: str) -> Expression:
    """Raises TemplateError for what is no expression."""
    return Expression(text)


def is_plain(text: str) -> bool:
    """Whether a text holds nothing a template would act on."""
    return "{" not in text or not ("{{" in text or "{%" in text or "{#" in text)


def present(values: Mapping[str, object]) -> Mapping[str, object]:
    """Values as templates may see them.

    A null would be printed as the word "None" into a prompt that is paid for. So it is replaced by
    something that is false, that ``default`` replaces, and that refuses to be printed.
    """
    if _FREE_OF_NULL.issuperset(map(type, values.values())):
        return values
    return {name: _without_null(value, name) for name, value in values.items()}


def nearest(name: str, known: Iterable[str]) -> str:
    """A half sentence for a name that is not known: its nearest match, or what there is."""
    names = list(known)
    if close := closest_match(name, names):
        return f"did you mean {close!r}?"
    if not names:
        return "there is none"
    shown = ", ".join(names[:20])
    return f"there are: {shown}, ..." if len(names) > 20 else f"there are: {shown}"


_PRINTED_AS_THEY_ARE: Final = frozenset({str, int, float})
_FREE_OF_NULL: Final = frozenset({str, int, float, bool, bytes})


class _Null(Undefined):
    """A value that is null."""

    __slots__ = ()

    def __str__(self) -> str:
        return self._fail_with_undefined_error()

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, _Null)

    def __hash__(self) -> int:
        return hash(None)


def _without_null(value: object, name: str) -> object:
    if value is None:
        return _Null(
            f"column {name!r} is empty (null) in this row; "
            f"leave such rows out, or use {{{{ {name} | default('...') }}}}"
        )
    if isinstance(value, dict):
        return {key: _without_null(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_null(inner, f"{name}[{at}]") for at, inner in enumerate(value)]
    return value


class _Missing(StrictUndefined):
    """A name, or a key of a mapping, that is not there."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint is None and isinstance(self._undefined_obj, dict):
            known = nearest(str(self._undefined_name), map(str, self._undefined_obj))
            return f"no column {self._undefined_name!r}; {known}"
        return super()._undefined_message


_UNDEFINED_NAME = re.compile(r"'(.+)' is undefined")


def _failure(error: Exception, values: Mapping[str, object]) -> TemplateError:
    if isinstance(error, TemplateError):
        return error
    message = str(error)
    if isinstance(error, UndefinedError):
        name = _UNDEFINED_NAME.fullmatch(message)
        if name and name[1] not in values:
            return UndefinedNameError(f"no column {name[1]!r}; {nearest(name[1], values)}")
        return TemplateError(message)
    if isinstance(error, SecurityError | OverflowError):
        return TemplateError(message)
    return TemplateError(f"the template fails: {message or type(error).__name__}")


_NO_FILTER = re.compile(r"No filter named '(.+)'")


def _compiled(
    parse: Callable[[], nodes.Template],
) -> tuple[nodes.Template, frozenset[str], JinjaTemplate]:
    try:
        tree = parse()
        names = frozenset(meta.find_undeclared_variables(tree))
        return tree, names, _ENVIRONMENT.from_string(_Limiter().visit(tree))
    except TemplateError:
        raise
    except TemplateSyntaxError as error:
        problem = error.message or "is no template"
        if isinstance(error, TemplateAssertionError) and (name := _NO_FILTER.match(problem)):
            problem = f"no filter {name[1]!r}; {nearest(name[1], _ENVIRONMENT.filters)}"
        raise TemplateError(f"line {error.lineno} of the template: {problem}") from None
    except RecursionError:
        raise TemplateError("the template is nested too deep") from None
    except Exception as error:  # Jinja lets errors of Python's own compiler through
        raise TemplateError(f"the template cannot be compiled: {error}") from None


def _condition(expression: str) -> nodes.Template:
    """A template that gives text when the expression holds, and nothing when not."""
    parser = Parser(_ENVIRONMENT, expression, state="variable")
    test = parser.parse_expression()
    if not parser.stream.eos:
        token = parser.stream.current
        raise TemplateSyntaxError(f"unexpected {token.value!r}", token.lineno)
    text = nodes.Output([nodes.TemplateData("true")], lineno=1)
    tree = nodes.Template([nodes.If(test, [text], [], [], lineno=1)], lineno=1)
    tree.set_environment(_ENVIRONMENT)
    return tree


def _with_globals(names: frozenset[str], values: Mapping[str, object]) -> dict[str, Any]:
    if names.isdisjoint(_GLOBALS):
        # Jinja only reads it, and copying 40 columns would cost more than most templates.
        return cast("dict[str, Any]", values)
    return {**_GLOBALS, **values}


# What follows keeps a template from taking more time or memory than a prompt can need.


class _Limiter(NodeTransformer):
    """Puts every loop and every ``~`` under the limits; refuses what could call itself."""

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
            f"{type(node).__name__.lower()} is for web pages, a prompt has none", node.lineno
        )

    visit_Macro = visit_CallBlock = visit_Include = visit_Import = _refuse
    visit_FromImport = visit_Extends = visit_Block = _refuse


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    made.set_environment(_ENVIRONMENT)
    return made


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


def _bounded_concat(pieces: Iterable[str]) -> str:
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
    return _bounded_concat(map(_printed, values))


def _join(values: Iterable[object], by: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        values = map(jinja_filters.make_attrgetter(_ENVIRONMENT, attribute), values)
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
    return text % values


def _round(value: float, precision: int = 0) -> float:
    if abs(precision) > 30:
        raise OverflowError("at most 30 digits can be rounded to")
    return round(value, precision)


def _printed(value: object) -> str:
    return str(_finalized(value))


def _finalized(value: object) -> object:
    """What is printed for a value; lists and the like are refused, Python's look is no prompt."""
    if type(value) in _PRINTED_AS_THEY_ARE or isinstance(value, str | Undefined):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        raise TemplateError("a null value would be printed; use default('...') or an if")
    if isinstance(value, dict | list | tuple | Iterator):
        raise TemplateError(
            f"a {type(value).__name__} would be printed; pick one value, or use join(', ')"
        )
    raise TemplateError(f"a {type(value).__name__} would be printed, which is no text")


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
"""What values can do in a template; the rest could fill the memory, or is nothing for prompts."""

_JINJA_FILTERS: Final = """
    abs capitalize count d default dictsort first float int items last length list lower map max
    min reject rejectattr reverse select selectattr sort striptags sum title trim truncate unique
    upper urlencode wordcount
"""
"""Those that end soon; not ``random``, because a plan must be the same each time."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with limits on what one expression can make."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(_bounded_concat)

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
        return None  # `format` is no allowed method

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
    return value is None or isinstance(value, _Null)


def _environment() -> _Sandbox:
    environment = _Sandbox(
        autoescape=False,
        undefined=_Missing,
        finalize=_finalized,
        keep_trailing_newline=True,
        cache_size=0,
    )
    environment.filters = {name: jinja_filters.FILTERS[name] for name in _JINJA_FILTERS.split()}
    environment.filters |= {
        "format": _format,
        "join": _join,
        "replace": _replace,
        "round": _round,
        "string": _printed,
        "slug": lambda value: slug(_printed(value)),
        "_concat": _concat,
        "_counted": _counted,
    }
    environment.tests["none"] = _is_none
    environment.globals = {}
    return environment


_GLOBALS: Final[Mapping[str, object]] = MappingProxyType({"range": _range, "namespace": Namespace})
_ENVIRONMENT: Final = _environment()
