"""Read untrusted YAML: events only, under limits of depth, size and aliases.

Neither PyYAML's composer nor its constructor runs, so nothing in a document is ever executed or
expanded. Whether the document is a manifest is not decided here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn, TypeAlias, cast

import yaml
from yaml.error import Mark

from batchgen.manifest.yaml_scalars import Ambiguous, Scalar, Value, resolve

DocPath: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

MAX_DEPTH: Final = 32
MAX_NODES: Final = 5_000_000
MAX_ALIASED_NODES: Final = 200_000
"""Limit of the values that all aliases refer to together."""
MAX_FINDINGS: Final = 100
"""After this number, the rest of the document is not checked."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Both scan without recursion; libyaml's does it twenty times as fast."""
_TEXT_TAG: Final = "tag:yaml.org,2002:str"
_LETTERS: Final = ("n", "N", "y", "Y")
"""As keys they are names; no reader in use takes them for truth there."""
_CUT_TEXT: Final = re.compile(r"[ \t]+#[^\s#]")
LINE_BREAK: Final = re.compile("\r\n|\r|\n")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Finding(NamedTuple):
    """Something that is wrong with a document as YAML. Line and column count from 1."""

    line: int
    column: int
    path: DocPath
    message: str


def scan(text: str) -> tuple[dict[str, Value] | None, list[Finding]]:
    """Read a document whose top is a mapping, and all that is wrong with it as YAML.

    The mapping is None where the document cannot be read to its end. What is found wrong on the
    way is left out of it, or read as if it were right.
    """
    reader = _Reader(text)
    document = None
    with suppress(_StoppedReading):
        document = reader.read()
    return document, reader.findings


class _StoppedReading(Exception):
    """The rest of the document cannot be read."""


@dataclass(frozen=True, slots=True)
class _Anchor:
    value: Value
    nodes: int
    """How many values it holds, those of aliases in it included."""
    height: int
    """How many levels it goes down; 0 for a scalar."""


class _Reader:
    """Makes values of a document's events."""

    def __init__(self, text: str) -> None:
        self.findings: list[Finding] = []
        self._text = text
        self._events = self._watched_events()
        self._path: list[str | int] = []
        self._anchors: dict[str, _Anchor | None] = {}
        self._nodes = 0
        self._aliased = 0
        self._depth = 0
        self._deepest = 0

    def read(self) -> dict[str, Value]:
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            self._stop_empty()
        top = next(self._events)
        match top:
            case yaml.MappingStartEvent():
                pass
            case yaml.ScalarEvent() if not top.value and not top.style:
                self._stop_empty()
            case yaml.SequenceStartEvent():
                self._stop(top, "expected a mapping, got a list; put prompts below jobs:")
            case _:
                self._stop(top, "a manifest is a mapping; write jobs: and below it '- a prompt'")
        document = cast("dict[str, Value]", self._node(top))
        next(self._events)  # the end of the document
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            self._stop(after, "a second document begins here; one file holds one manifest")
        return document

    def _stop_empty(self) -> NoReturn:
        self.findings.append(
            Finding(1, 1, (), "holds no manifest; write jobs: and below it '- a prompt'")
        )
        raise _StoppedReading

    # Nodes

    def _node(self, event: yaml.Event) -> Value:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"over {MAX_NODES:,} values; put them into a table that rows: names")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        anchor = event.anchor  # type: ignore[attr-defined]  # types-PyYAML has it on aliases only
        if anchor is None:
            return self._unnamed_node(event)
        if anchor in self._anchors:
            self._find(event, f"the anchor &{anchor} is defined twice; rename one of them")
        self._anchors[anchor] = None
        nodes, deepest = self._nodes, self._deepest
        self._deepest = self._depth
        value = self._unnamed_node(event)
        self._anchors[anchor] = _Anchor(value, self._nodes - nodes + 1, self._deepest - self._depth)
        self._deepest = max(deepest, self._deepest)
        return value

    def _alias(self, event: yaml.AliasEvent) -> Value:
        if event.anchor not in self._anchors:
            self._stop(
                event,
                f"unknown alias: *{event.anchor}; expected an anchor &{event.anchor} above it",
            )
        anchor = self._anchors[event.anchor]
        if anchor is None:
            self._stop(event, f"the alias *{event.anchor} is inside the value it refers to")
        self._nodes += anchor.nodes
        self._aliased += anchor.nodes
        self._deepest = max(self._deepest, self._depth + anchor.height)
        if self._aliased > MAX_ALIASED_NODES:
            self._stop(event, f"the aliases refer to more than {MAX_ALIASED_NODES:,} values")
        if self._deepest > MAX_DEPTH:
            self._stop_too_deep(event)
        return anchor.value

    def _unnamed_node(self, event: yaml.Event) -> Value:
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event)
        self._depth += 1
        self._deepest = max(self._deepest, self._depth)
        if self._depth > MAX_DEPTH:
            self._stop_too_deep(event)
        self._check_tag(event)
        value = self._list() if isinstance(event, yaml.SequenceStartEvent) else self._mapping(event)
        self._depth -= 1
        return value

    def _stop_too_deep(self, event: yaml.Event) -> NoReturn:
        self._stop(event, f"nested deeper than {MAX_DEPTH} levels")

    def _list(self) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            self._path.append(len(items))
            items.append(self._node(event))
            self._path.pop()
        return items

    def _mapping(self, start: yaml.Event) -> dict[str, Value]:
        if self._text.startswith("{{", _mark(start).index):
            self._stop(start, "a text that begins with {{ must be quoted, the whole of it")
        values: dict[str, Value] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, lines)
            self._path.append("?" if key is None else key)
            value = self._node(next(self._events))
            self._path.pop()
            if key is not None:
                values.setdefault(key, value)
        return values

    # Keys and scalars

    def _key(self, event: yaml.Event, lines: dict[str, int]) -> str | None:
        """Return the text of a key; None after reporting an error."""
        if not isinstance(event, yaml.ScalarEvent):
            self._find(event, "a key must be text, not a list, a mapping or an alias")
            self._node(event)
            return None
        text = self._text_of(event)
        key = text if event.style or text in _LETTERS else self._plain(event)
        self._check_tag(event)
        if key == Ambiguous("<<"):
            self._find(
                event,
                "<< is not part of YAML 1.2; write the keys out, or once at the top of the"
                " manifest, where every job inherits them",
            )
            return None
        if not isinstance(key, str):
            shown = text[:40] or "nothing"
            self._find(event, f"{shown} cannot be a key; quote it: '{text[:40]}'")
            return None
        line = _mark(event).line + 1
        if key in lines:
            self._find(event, f"repeated key, first in line {lines[key]}; keep one of them", key)
            return None
        lines[key] = line
        if event.anchor is not None:
            self._find(event, "a key cannot have an anchor", key)
        return sys.intern(key)

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        self._check_tag(event)
        value = self._text_of(event)
        if event.style:
            return value
        if " " in value and _CUT_TEXT.match(self._text, cast("Mark", event.end_mark).index):
            self._find(
                event,
                "the text ends before its '#', where a comment begins; quote the whole text,"
                " or put a space after the # of a comment",
            )
        return self._plain(event)

    def _text_of(self, event: yaml.ScalarEvent) -> str:
        text: str = event.value
        if not text.isascii() and _SURROGATE.search(text):  # PyYAML's own scanner lets it through
            self._find(event, "contains an unpaired surrogate; expected valid Unicode text")
            return _SURROGATE.sub("?", text)
        return text

    def _plain(self, event: yaml.ScalarEvent) -> Scalar:
        return event.value if event.tag == _TEXT_TAG else resolve(event.value)

    def _check_tag(self, event: yaml.Event) -> None:
        tag = event.tag  # type: ignore[attr-defined]  # types-PyYAML leaves it out
        if tag is None or (tag == _TEXT_TAG and isinstance(event, yaml.ScalarEvent)):
            return
        self._find(event, f"the tag {_short_tag(tag)} means nothing here; leave it out")

    # Findings

    def _find(self, event: yaml.Event, message: str, key: str | None = None) -> None:
        mark = _mark(event)
        path = (*self._path, key) if key is not None else tuple(self._path)
        stops = len(self.findings) + 1 >= MAX_FINDINGS
        if stops:
            message += "; too many errors, the rest was not checked"
        self.findings.append(Finding(mark.line + 1, mark.column + 1, path, message))
        if stops:
            raise _StoppedReading

    def _stop(self, event: yaml.Event, message: str) -> NoReturn:
        self._find(event, message)
        raise _StoppedReading

    def _watched_events(self) -> Iterator[yaml.Event]:
        """Yield the events of the document; a syntax error is recorded and ends them."""
        try:
            yield from events(self._text)
        except yaml.MarkedYAMLError as error:
            self.findings = _before_nesting_limit(error, self._text) or [
                *self.findings,
                _syntax_finding(error, self._text),
            ]
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML's own scanner lets errors of chr() through for an escape like \UFFFFFFFF.
            self.findings.append(Finding(1, 1, (), f"is not valid YAML: {error}"))
        raise _StoppedReading


def events(text: str) -> Iterator[yaml.Event]:
    """Yield the events of a document. Raises yaml.YAMLError; see `_Reader` for what else."""
    return yaml.parse(text, Loader=_LOADER)


def line_and_column(text: str, index: int) -> tuple[int, int]:
    """Return the line and column of a character, counted from 1."""
    before = LINE_BREAK.split(text[:index])
    return len(before), len(before[-1]) + 1


def _mark(event: yaml.Event) -> Mark:
    return cast("Mark", event.start_mark)  # None is for events that are made by hand


def _short_tag(tag: str) -> str:
    return f"!!{tag.removeprefix('tag:yaml.org,2002:')}" if tag.startswith("tag:") else tag[:60]


# Faults of syntax

_UNCLOSED_QUOTE: Final = "the quotation mark that opens this text is never closed"
_EXPECTED_KEY: Final = "expected 'key: value' here; the text before it may need quotes"
_OPEN_BRACKET: Final = "a ',' or a closing bracket is missing"
_QUOTE_IT: Final = "a text with ': ' in it must be quoted, the whole of it"
_HINTS: Final = (
    ("mapping values are not allowed", f"{_QUOTE_IT}; or this line is indented too far"),
    ("could not find expected ':'", "expected a ':'; if a text continues here, indent it"),
    ("did not find expected key", _EXPECTED_KEY),
    ("expected <block end>", _EXPECTED_KEY),
    ("did not find expected '-' indicator", "expected '- ' here, as above"),
    ("did not find expected ','", _OPEN_BRACKET),
    ("expected ','", _OPEN_BRACKET),
    ("invalid Unicode character escape", "invalid escape; write the character itself"),
    ("unknown escape character", "in double quotes a backslash is written \\\\"),
)


def _syntax_finding(error: yaml.MarkedYAMLError, text: str) -> Finding:
    """Return a syntax error in words that need no knowledge of YAML's grammar."""
    problem, context = error.problem or "cannot be read", error.context or ""
    begin = error.context_mark
    mark = error.problem_mark or begin
    if begin is not None and "quoted scalar" in context and "unexpected" in problem:
        mark, problem = begin, _UNCLOSED_QUOTE
    # The path is left out: the scanner is some values ahead of the reader. Lines are counted again,
    # as libyaml has one too many at the end of a file that does not end with a line break.
    index = 0 if mark is None else mark.index
    line, column = line_and_column(text, index)
    if "cannot start any token" in problem:
        problem = _bad_start(text[index : index + 1])
    elif problem is not _UNCLOSED_QUOTE:
        hint = next((hint for known, hint in _HINTS if known in problem), problem)
        problem = f"is not valid YAML: {hint}"
        if begin is not None and begin.line + 1 != line:
            problem += f" (what is open here began in line {begin.line + 1})"
    return Finding(line, column, (), problem)


def _before_nesting_limit(error: yaml.MarkedYAMLError, text: str) -> list[Finding]:
    """Return what the reader finds in the text before libyaml's own limit of depth.

    libyaml 0.2.6 refuses 1,000 levels while it looks ahead for a key, before the reader sees the
    first of them. Empty for any other error.
    """
    mark = error.problem_mark
    if mark is None or "nesting depth" not in (error.problem or ""):
        return []
    return scan(text[: mark.index])[1]


def _bad_start(character: str) -> str:
    if character == "\t":
        return "YAML is indented with spaces; there is a tab here"
    return f"a text that begins with {character} must be quoted"


# Places of values


class Spot(NamedTuple):
    """The place of a value, counted from 1, and of those in it."""

    line: int
    column: int
    within: list[Spot] | dict[str, tuple[Spot, Spot]] | None = None
    """For a mapping the places of its keys and of its values."""


def locate(text: str) -> Spot:
    """Return the places of all values of a document that `scan` could read to its end."""
    stream = events(text)
    next(stream)
    next(stream)
    return _spot(next(stream), stream)


def _spot(event: yaml.Event, stream: Iterator[yaml.Event]) -> Spot:
    mark = _mark(event)
    within: list[Spot] | dict[str, tuple[Spot, Spot]] | None = None
    if isinstance(event, yaml.SequenceStartEvent):
        within = []
        while not isinstance(item := next(stream), yaml.SequenceEndEvent):
            within.append(_spot(item, stream))
    elif isinstance(event, yaml.MappingStartEvent):
        within = {}
        while not isinstance(key := next(stream), yaml.MappingEndEvent):
            name = key.value if isinstance(key, yaml.ScalarEvent) else None
            spots = _spot(key, stream), _spot(next(stream), stream)
            if name is not None:
                within.setdefault(name, spots)
    return Spot(mark.line + 1, mark.column + 1, within)
