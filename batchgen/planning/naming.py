"""Keys of jobs and paths of images: the same for ever for the same input, safe on every OS."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from posixpath import normpath
from typing import Final

from batchgen.job import EXT_PLACEHOLDER, canonical_json
from batchgen.text import slug

KEY_COLUMNS: Final = ("key", "id", "sku", "handle")
"""The columns that name a row, best first."""
MAX_KEY_CHARS: Final = 200
MAX_COMPONENT_BYTES: Final = 200
"""File systems allow 255; the rest is for suffixes like ``.part`` beside an image."""
MAX_PATH_BYTES: Final = 1_000
_MAX_ORDINARY_CHARS: Final = MAX_COMPONENT_BYTES - 2

EXT_MARK: Final = "\ufdd0"
"""What ``{{ ext }}`` renders to. Unicode keeps this code point out of texts, so that no value of
a row can pass for the extension."""

_EXT: Final = f".{EXT_MARK}"
_SLUG_CHARS: Final = 40
_HASH_DIGITS: Final = 12
"""48 bits: among a million prompts that begin with the same words, two meet once in 500 batches;
with 32 bits over a hundred would meet in each."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_IMAGE_SUFFIX = re.compile(r"\.(?:png|jpe?g|webp)\Z", re.IGNORECASE)


class NamingError(ValueError):
    """A key or a path that cannot be used; the message says why."""


def text_of(value: object) -> str:
    """A value as the text it has in keys: true and false as in JSON, nothing for None.

    Raises NamingError for lists, mappings and bytes.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise NamingError(f"a {type(value).__name__} cannot be a key")


def row_key(values: Mapping[str, object], matrix: Sequence[object]) -> str | None:
    """The key a row has by itself: its first filled key column, and the matrix values.

    None when the row has no such column. Raises NamingError when the column holds no plain value.
    """
    for column in KEY_COLUMNS:
        if column in values and (own := text_of(values[column]).strip()):
            return "/".join([own, *map(text_of, matrix)]) if matrix else own
    return None


def prompt_key(prompt: str, matrix: Mapping[str, object]) -> str:
    """The key of a job that nothing else names: words of its prompt and a hash.

    The hash covers the prompt and the matrix values only, so a new model or new options redo the
    same job instead of making another.
    """
    digest = sha256(canonical_json([prompt, matrix]).encode()).hexdigest()[:_HASH_DIGITS]
    words = slug(prompt, _SLUG_CHARS)
    return f"{words}-{digest}" if words else digest


def checked_key(key: str) -> str:
    """The key stripped and in NFC. Raises NamingError when it cannot be a key."""
    key = key.strip()
    if not key.isascii():
        key = unicodedata.normalize("NFC", key)
    if not key:
        raise NamingError("the key is empty")
    if len(key) > MAX_KEY_CHARS:
        raise NamingError(f"the key is {len(key):,} characters long; at most {MAX_KEY_CHARS} fit")
    if not key.isprintable() and _CONTROL.search(key):
        raise NamingError(f"the key {key!r} holds a control character")
    return key


def copy_key(key: str, index: int) -> str:
    """The key of the copy ``index``, from 1; the first has the plain key, so that a raised count
    keeps the images already made."""
    return key if index == 1 else f"{key}-{index}"


def output_path(rendered: str, copy: int = 1) -> str:
    """Turn a rendered path template into the path of an image below the output directory.

    `EXT_MARK` becomes the placeholder of `batchgen.job`. Where the path does not end with it, a
    known image suffix gives way to it, or it is appended. ``copy`` above 1 is put before the
    extension. Raises NamingError when the file's name is empty or the path is too long.
    """
    text = rendered.replace(EXT_PLACEHOLDER, "_ext_")
    directory, slash, name = text.rpartition("/")
    if name.endswith(_EXT):
        stem = name.removesuffix(_EXT).rstrip(" .")
    else:
        stem = _IMAGE_SUFFIX.sub("", name.rstrip(" ."))
    if not safe_component(stem):
        raise NamingError("the path ends without a file name")
    number = f"-{copy}" if copy > 1 else ""
    path = safe_path(f"{directory}{slash}{stem}{number}{_EXT}")
    path = path.replace(EXT_MARK, EXT_PLACEHOLDER)
    if len(path.encode()) > MAX_PATH_BYTES:
        raise NamingError(f"the path is longer than {MAX_PATH_BYTES:,} bytes: {path[:80]}...")
    return path


def path_of_stem(stem: str, copy: int = 1) -> str:
    """The same for a template that ends with ``.{{ ext }}``, rendered without that end."""
    if copy == 1 and len(stem) < _MAX_ORDINARY_CHARS and _ORDINARY_STEM.fullmatch(stem):
        return f"{stem}.{EXT_PLACEHOLDER}"
    return output_path(f"{stem}{_EXT}", copy)


def safe_path(text: str) -> str:
    """A relative path of safe components, whatever the text; ``/`` alone separates directories.

    Components without a safe character left, ``..`` among them, are dropped; ``_`` when none is
    left at all. A path that is safe already stays as it is.
    """
    return "/".join(filter(None, map(safe_component, text.split("/")))) or "_"


_PLAIN = re.compile(
    rf"[A-Za-z0-9_{EXT_MARK}](?:[A-Za-z0-9_. {EXT_MARK}-]*[A-Za-z0-9_{EXT_MARK}-])?"
)
_FORBIDDEN = re.compile(r'[<>:"|?*\\/\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_RESERVED_NAME = (
    r"(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|CLOCK\$|(?:COM|LPT)[0-9\u00b9\u00b2\u00b3]) *(?:[./]|\Z)"
)
_RESERVED = re.compile(_RESERVED_NAME, re.IGNORECASE)
_ORDINARY_NAME = rf"(?!(?i:{_RESERVED_NAME}))[A-Za-z0-9_][A-Za-z0-9_-]*"
_ORDINARY_STEM = re.compile(rf"(?:{_ORDINARY_NAME}/)*{_ORDINARY_NAME}", re.ASCII)
"""Nearly all paths but for their extension; the rules below have nothing to do for them."""


def safe_component(text: str) -> str:
    """One file or directory name that means the same on Linux, macOS and Windows; may be empty.

    The rules are those of Microsoft's "Naming Files, Paths, and Namespaces", and of shells: no
    dash or dot in front, no characters that hide or turn the text around.
    """
    if not _PLAIN.fullmatch(text):
        text = _FORBIDDEN.sub("_", _INVISIBLE.sub("", text))
        text = unicodedata.normalize("NFC", text).lstrip(" .-").rstrip(" .")
    if _RESERVED.match(text):
        text = f"_{text}"
    if len(text) * 4 > MAX_COMPONENT_BYTES and len(text.encode()) > MAX_COMPONENT_BYTES:
        text = _shortened(text)
    return text


def _shortened(text: str) -> str:
    """Cut to size with a hash of the whole, so that two long names stay two; the suffix stays."""
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode()) > 16:
        stem, dot, suffix = text, "", ""
    digest = sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
    tail = f"-{digest}{dot}{suffix}"
    room = MAX_COMPONENT_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + tail


def collision_key(root: str, path: str) -> str:
    """What two output paths have in common when some file system takes them for one."""
    text = f"{_normal_root(root)}/{path.replace(EXT_PLACEHOLDER, '')}"
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", folded)


_normal_root: Final = lru_cache(maxsize=1024)(normpath)


def final_path(path: str, extension: str, rank: int = 0) -> str:
    """A planned path with its extension; images beyond the one asked for are marked."""
    if rank == 0:
        return path.replace(EXT_PLACEHOLDER, extension)
    head, _, tail = path.rpartition(f".{EXT_PLACEHOLDER}")
    head = head.replace(EXT_PLACEHOLDER, extension)
    extra = "-extra" if rank == 1 else f"-extra-{rank}"
    return f"{head}{extra}.{extension}{tail}"
