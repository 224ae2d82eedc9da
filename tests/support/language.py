"""Find banned words in texts and identifiers, and long test names.

CONTRIBUTING.md has the rules and the glossary.

``python -m tests.support.language`` lists the hits of the paths given as arguments.
``python -m tests.support.language --update`` lowers the counts in ``tests/language_pending.json``.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PENDING: Final = ROOT / "tests" / "language_pending.json"
MAX_NAME: Final = 60

BANNED: Final = re.compile(
    r"""
    \b(
        anew | mend(s|ed|ing)? | heed(s|ed|ing)? | stranger(s|'s)?
      | told | tell(s|ing)?                                  # report, say
      | whoever | whatever | nobody | to\ be\ had | cannot\ be\ had
      | is\ (?-i:none) | are\ none | is\ no | so\ many | not\ so\ much
      | stands? | stood                                      # is, are
      | comes?\ to | came\ to | what\ came\ of
      | behind                                               # after
      | beside                                               # next to
      | answers?                                             # response
      | folders?                                             # directory
      | pictures?                                            # image
      | (in\ )?doubts? | doubtful                            # uncertain
      | asked\ for                                           # requested
      | set(s|ting)?\ aside                                  # reserve
      | hold(s)?\ against | held\ against                    # reconcile
      | bought\ again | buy\ again                           # rebuy
      | dearest | fate | for\ ever
      | goes?\ on | gone\ on                                 # continue
      | enrol | enrols | enrolment | colour | behaviour
    )\b
    | (?<!IP\ )(?<!email\ )\baddress(es)?\b                  # URL
    """,
    re.IGNORECASE | re.VERBOSE,
)

QUOTED: Final = {
    "batchgen/outcomes/account_errors.py",
    "batchgen/outcomes/request_errors.py",
    "tests/support/language.py",
    "tests/test_language.py",
    ".github/CONTRIBUTING.md",
}
"""Files that quote the words of providers, and those that list the banned words."""

SWITCHES: Final = re.compile(r"--[a-z]+(-[a-z]+)+")
"""Names of options, which cannot change without breaking scripts."""

COLUMNS: Final = {"doubts"}
"""Names that follow a column of the ledger."""

NONE_CHECK: Final = "is none"
"""The end of names such as ``_is_none``, which are about None of Python."""

HUMPS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Hit:
    """A banned word or a long name."""

    path: str
    line: int
    text: str

    @property
    def prefix(self) -> str:
        """The directory whose count the hit belongs to, or the file at the top of its tree."""
        parts = self.path.split("/")
        depth = 3 if parts[:2] == ["tests", "unit"] else 2
        return "/".join(parts[:depth])


def files() -> Iterator[Path]:
    """Yield the files that the rules apply to."""
    for tree in ("batchgen", "tests", "jobs", ".github"):
        for path in sorted((ROOT / tree).rglob("*")):
            if path.suffix in {".py", ".md", ".yaml", ".yml"}:
                yield path
    yield ROOT / "README.md"
    yield ROOT / "CHANGELOG.md"


def banned_words(path: Path) -> Iterator[Hit]:
    """Yield the banned words of a file, at most one per line."""
    name = path.relative_to(ROOT).as_posix()
    if name in QUOTED:
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := BANNED.search(SWITCHES.sub("", line)):
            yield Hit(name, number, found[0])


def banned_identifiers(path: Path) -> Iterator[Hit]:
    """Yield the identifiers with banned words that a file defines."""
    name = path.relative_to(ROOT).as_posix()
    if path.suffix != ".py" or name in QUOTED:
        return
    for line, identifier in banned_definitions(path.read_text(encoding="utf-8")):
        yield Hit(name, line, identifier)


def banned_definitions(code: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each definition with banned words.

    Names that are only used are defined elsewhere: in another file, or in a library.
    """
    for line, name in definitions(ast.parse(code)):
        words = HUMPS.sub(" ", name.replace("_", " ")).removesuffix(NONE_CHECK)
        if name not in COLUMNS and BANNED.search(words):
            yield line, name


def definitions(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each function, class, parameter, variable and attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str(name)):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)):
                yield node.lineno, name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.MatchMapping(rest=str(name)):
                yield node.lineno, name


def long_names(path: Path) -> Iterator[Hit]:
    """Yield the names of test functions with more than MAX_NAME characters."""
    if path.suffix != ".py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
            and len(node.name) > MAX_NAME
        ):
            yield Hit(path.relative_to(ROOT).as_posix(), node.lineno, node.name)


RULES: Final = {
    "words": banned_words,
    "identifiers": banned_identifiers,
    "names": long_names,
}


def counts() -> dict[str, dict[str, int]]:
    """Return the number of hits per rule and prefix."""
    found = {rule: Counter[str]() for rule in RULES}
    for path in files():
        for rule, search in RULES.items():
            found[rule].update(hit.prefix for hit in search(path))
    return {rule: dict(sorted(prefixes.items())) for rule, prefixes in found.items()}


def pending() -> dict[str, dict[str, int]]:
    """Return the hits that are still allowed, per rule and prefix."""
    loaded: dict[str, dict[str, int]] = json.loads(PENDING.read_text(encoding="utf-8"))
    return loaded


def update() -> None:
    """Lower the allowed counts to the current ones; never raise them."""
    allowed = pending()
    lower = {
        rule: {prefix: min(count, allowed[rule].get(prefix, 0)) for prefix, count in found.items()}
        for rule, found in counts().items()
    }
    kept = {rule: {k: v for k, v in found.items() if v} for rule, found in lower.items()}
    PENDING.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """List hits, or update the allowed counts."""
    if arguments == ["--update"]:
        update()
        return
    for path in files():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith(tuple(arguments) or ""):
            for search in RULES.values():
                for hit in search(path):
                    print(f"{hit.path}:{hit.line}: {hit.text}")


if __name__ == "__main__":
    main(sys.argv[1:])
