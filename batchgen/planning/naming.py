"""Keys of jobs and paths of images: stable for the same input, and safe on every OS."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from posixpath import normpath
from typing import Final

import orjson

from batchgen.job import EXT_PLACEHOLDER, Job, Publish, canonical_json
from batchgen.text import slug

KEY_COLUMNS: Final = ("key", "id", "sku", "handle", "url_handle")
"""Columns that identify a row, in order of preference. Shopify has renamed its last one."""
MAX_KEY_CHARS: Final = 200
MAX_COMPONENT_BYTES: Final = 200
"""File systems allow 255; the rest is for suffixes like ``.part``."""
MAX_PATH_BYTES: Final = 1_000
_MAX_ORDINARY_CHARS: Final = MAX_COMPONENT_BYTES - 2

EXT_MARK: Final = "\ufdd0"
"""The value of ``{{ ext }}`` in templates. Unicode reserves this code point as a noncharacter, so
no value of a row can be mistaken for the extension."""

_EXT: Final = f".{EXT_MARK}"
_SLUG_CHARS: Final = 40
_HASH_DIGITS: Final = 12
"""48 bits: a million prompts that begin with the same words have one collision in 500 batches.
With 32 bits, each such batch would have more than a hundred."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_IMAGE_SUFFIX = re.compile(r"\.(?:png|jpe?g|webp|gif|avif|hei[cf])\Z", re.IGNORECASE)


class NamingError(ValueError):
    """A key or path cannot be used; the message says why."""


def text_of(value: object) -> str:
    """Return a value as text for a key: booleans as in JSON, None as an empty string.

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
    raise NamingError(
        f"a value of type {type(value).__name__} cannot be a key; expected text or a number"
    )


def row_key(values: Mapping[str, object], matrix: Sequence[object]) -> str | None:
    """Return the key of a row: its first non-empty key column and the matrix values.

    None if the row has no such column. Raises NamingError if its value is not text or a number.
    """
    for column in KEY_COLUMNS:
        if column in values and (own := text_of(values[column]).strip()):
            return "/".join([own, *map(text_of, matrix)]) if matrix else own
    return None


def prompt_key(prompt: str, matrix: Mapping[str, object]) -> str:
    """Return the key of a job without any other name: words of its prompt and a hash.

    The hash covers only the prompt and the matrix values. A new model or new options therefore
    regenerate the same job and do not create another one.
    """
    # orjson writes text exactly like `canonical_json`, ten times faster, but not every number.
    text = canonical_json([prompt, matrix]).encode() if matrix else orjson.dumps([prompt, {}])
    digest = sha256(text).hexdigest()[:_HASH_DIGITS]
    words = slug(prompt, _SLUG_CHARS)
    return f"{words}-{digest}" if words else digest


def checked_key(key: str) -> str:
    """Return the key stripped and in NFC. Raises NamingError if it is not a valid key."""
    key = key.strip()
    if not key.isascii():
        key = unicodedata.normalize("NFC", key)
    if not key:
        raise NamingError("the key is empty")
    if len(key) > MAX_KEY_CHARS:
        raise NamingError(f"the key has {len(key):,} characters; expected at most {MAX_KEY_CHARS}")
    if not key.isprintable() and _CONTROL.search(key):
        raise NamingError(f"the key {key!r} contains a control character")
    return key


def copy_key(key: str, index: int) -> str:
    """Return the key of copy ``index``, counted from 1.

    The first copy has the plain key, so that a higher count keeps the images made earlier.
    """
    return key if index == 1 else f"{key}-{index}"


def output_path(rendered: str, copy: int = 1) -> str:
    """Return the path of an image below the output directory, from a rendered path template.

    `EXT_MARK` becomes `batchgen.job.EXT_PLACEHOLDER`. A path that does not end with it gets it in
    place of a known image suffix, or appended. A ``copy`` above 1 is added before the extension.
    Raises NamingError if the file name is empty or the path is too long.
    """
    text = rendered.replace(EXT_PLACEHOLDER, "_ext_")
    directory, slash, name = text.rpartition("/")
    if name.endswith(_EXT):
        stem = name.removesuffix(_EXT).rstrip(" .")
    else:
        stem = _IMAGE_SUFFIX.sub("", name.rstrip(" ."))
    if not safe_component(stem):
        raise NamingError("the path has no file name")
    number = f"-{copy}" if copy > 1 else ""
    path = safe_path(f"{directory}{slash}{stem}{number}{_EXT}")
    path = path.replace(EXT_MARK, EXT_PLACEHOLDER)
    if len(path.encode()) > MAX_PATH_BYTES:
        raise NamingError(f"the path is longer than {MAX_PATH_BYTES:,} bytes: {path[:80]}...")
    return path


def path_of_stem(stem: str, copy: int = 1) -> str:
    """Return the output path for a rendered template without its final ``.{{ ext }}``."""
    if copy == 1 and (path := ordinary_path(stem)) is not None:
        return path
    return output_path(f"{stem}{_EXT}", copy)


def ordinary_path(stem: str) -> str | None:
    """Return the output path of a stem that is also a valid key; None if it needs a closer look."""
    if len(stem) < _MAX_ORDINARY_CHARS and _ORDINARY_STEM.fullmatch(stem):
        return f"{stem}.{EXT_PLACEHOLDER}"
    return None


def safe_path(text: str) -> str:
    """Return a relative path of safe components; only ``/`` separates directories.

    Components without any safe character, such as ``..``, are dropped. The result is ``_`` if all
    are dropped. A path that is safe already is returned unchanged.
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
# Only few names begin like a reserved one, which is quicker to find out.
_ORDINARY_NAME = rf"(?!(?=[ACLNPaclnp])(?i:{_RESERVED_NAME}))[A-Za-z0-9_][A-Za-z0-9_-]*"
_ORDINARY_STEM = re.compile(rf"{_ORDINARY_NAME}(?:/{_ORDINARY_NAME})*", re.ASCII)
"""Paths that need no change, which are nearly all of them (fast path)."""


def safe_component(text: str) -> str:
    """Return a file or directory name that is valid on Linux, macOS and Windows; may be empty.

    The rules follow Microsoft's "Naming Files, Paths, and Namespaces". For shells and terminals,
    a leading dash or dot and invisible or direction-changing characters are removed too.
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
    """Shorten a name but keep its suffix; a hash of the whole name keeps long names distinct."""
    stem, dot, suffix = text.rpartition(".")
    if not stem or len(suffix.encode()) > 16:
        stem, dot, suffix = text, "", ""
    digest = sha256(text.encode()).hexdigest()[:_HASH_DIGITS]
    tail = f"-{digest}{dot}{suffix}"
    room = MAX_COMPONENT_BYTES - len(tail.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(" .") + tail


def collision_key(root: str, path: str) -> str:
    """Return a key that is equal for output paths that some file system treats as one file."""
    text = f"{_normal_root(root)}/{path.replace(EXT_PLACEHOLDER, '')}"
    if text.isascii():
        return text.lower()
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", folded)


_normal_root: Final = lru_cache(maxsize=1024)(normpath)


PENDING_DIRECTORY: Final = ".pending"
"""Where images wait until they are published, below their output directory. No planned path can
begin with a dot."""


def pending_path(path: str) -> str:
    """Return where an image waits that is published as ``path``."""
    return f"{PENDING_DIRECTORY}/{path}"


def published_path(path: str) -> str:
    """Return the path under which a waiting image is published."""
    return path.removeprefix(f"{PENDING_DIRECTORY}/")


def image_path(job: Job, extension: str, rank: int = 0, *, placed: str | None = None) -> str:
    """Return the path that an image of a job gets when it is saved.

    ``placed`` is the path that an earlier run recorded for it: an image that may already have its
    final name keeps it, since it may have replaced the image there.
    """
    path = final_path(job.path, extension, rank)
    is_published = placed is not None and published_path(placed) == placed
    if job.publish is Publish.AT_ONCE or is_published:
        return path
    return pending_path(path)


def final_path(path: str, extension: str, rank: int = 0) -> str:
    """Return a planned path with its extension; images after the first get an ``-extra`` mark."""
    if rank == 0:
        return path.replace(EXT_PLACEHOLDER, extension)
    head, _, tail = path.rpartition(f".{EXT_PLACEHOLDER}")
    head = head.replace(EXT_PLACEHOLDER, extension)
    extra = "-extra" if rank == 1 else f"-extra-{rank}"
    return f"{head}{extra}.{extension}{tail}"
