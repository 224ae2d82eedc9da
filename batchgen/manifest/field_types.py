"""Types of the values in a manifest, with their checks and JSON Schemas.

They accept values as `batchgen.manifest.yaml_reader` gives them, and plain Python ones. Amounts of
money stay the text they were written as.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

from batchgen.manifest.layout import check_delimiter
from batchgen.manifest.table_encoding import check_encoding
from batchgen.manifest.yaml_scalars import Ambiguous, Null
from batchgen.money import parse_dollars
from batchgen.urls import is_loopback, output_root

MAX_NAME_CHARS: Final = 100
_MAX_AMOUNT_CHARS: Final = 40
_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AMBIGUOUS: Final = "YAML readers take this for different things"
_VARIABLE: Final = "${"
"""Where a text of `provider` holds it, its value is known only when the settings are read."""

_OPTIONS_OF_THE_MANIFEST: Final = {
    "n": "count: says how many images to make; each is a request of its own",
    "prompt": "prompt: is a separate key, next to options:",
    "model": "model: is a separate key, next to options:",
    "image": "images: is a separate key, next to options:",
    "images": "images: is a separate key, next to options:",
    "mask": "mask: is a separate key, next to options:",
}


def check_name(name: str) -> str:
    """Return the name of a batch, if a shell and a directory can have it. Raises ValueError."""
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} characters, not {len(name):,}")
    if not name.isprintable():
        raise ValueError("a name holds printable characters only")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError("a name must not be a path; remove / and \\")
    if name != name.strip() or name.startswith("-"):
        raise ValueError("a name begins with no dash, and begins and ends with no space")
    return name


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty; write a text, or remove the key")
    return text


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, Decimal) else value


def _as_amount(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str):
        if len(value) > _MAX_AMOUNT_CHARS:
            raise ValueError("not an amount; expected dollars, like 12.50")
        return value
    raise ValueError("expected an amount in dollars, like 12.50")


def _dollars(text: str) -> str:
    parse_dollars(text)
    return text


def _dollars_or_variable(text: str) -> str:
    return text if _VARIABLE in text else _dollars(text)


def _share_or_dollars(text: str) -> str:
    number = text.strip().removesuffix("%")
    if number == text.strip():
        return _dollars(text)
    if not re.fullmatch(r"\s*-?[0-9]+(\.[0-9]+)?\s*", number):
        raise ValueError(f"not a share: {text!r}; expected a percentage like 5%")
    if not 0 <= Decimal(number.strip()) <= 100:
        raise ValueError(f"share out of range: {text!r}; expected 0% to 100%")
    return text


def _option_name(name: str) -> str:
    if name in _OPTIONS_OF_THE_MANIFEST:
        raise ValueError(_OPTIONS_OF_THE_MANIFEST[name])
    return name


def _scalar(value: object) -> object:
    """Return the value as pydantic knows it. Raises one error in place of one per union member."""
    if isinstance(value, Ambiguous):
        raise ValueError(f"{_AMBIGUOUS}; quote it: '{value.text[:40]}'")
    if isinstance(value, list | dict):
        found = "a list" if isinstance(value, list) else "a mapping"
        raise ValueError(f"expected a text, a number, true or false, got {found}")
    return _as_float(value)


def _option(value: object) -> object:
    return None if isinstance(value, Null) else _scalar(value)


def _printed(value: object) -> object:
    """Return a value that templates print, so it must look as it was written."""
    if isinstance(value, Null):
        raise ValueError("is empty; write a value, '' for an empty text")
    if isinstance(value, Decimal) and str(float(value)) != format(value, "f"):
        raise ValueError(f"would be printed as {float(value)}; quote it: '{value:f}'")
    return _scalar(value)


def _variable(value: object) -> object:
    if isinstance(value, list):
        return [_variable(item) for item in value]
    if isinstance(value, dict):
        return {key: _variable(item) for key, item in value.items()}
    return None if isinstance(value, Null) else _printed(value)


def _environment_name(text: str) -> str:
    if not _ENVIRONMENT_NAME.fullmatch(text):
        # It may be the key itself, so it is not shown.
        raise ValueError(
            "not a name of an environment variable; expected a name, never the key itself"
        )
    return text


def has_variable(text: str) -> bool:
    """Return whether a text names a variable of the environment."""
    return _VARIABLE in text


_SCALAR_SCHEMA: Final = {"type": ["string", "number", "boolean"]}

Text = Annotated[StrictStr, Field(min_length=1), AfterValidator(_not_blank)]
OutputRoot = Annotated[Text, AfterValidator(output_root)]
Option = StrictBool | StrictInt | StrictFloat | StrictStr
MatrixValue = StrictBool | StrictInt | StrictFloat | StrictStr
Rate = Annotated[StrictFloat, Field(gt=0), BeforeValidator(_as_float)]
Seconds = Annotated[StrictFloat, Field(gt=0, le=86_400), BeforeValidator(_as_float)]

SecondsOrZero = Annotated[StrictFloat, Field(ge=0, le=86_400), BeforeValidator(_as_float)]

OptionName = Annotated[StrictStr, AfterValidator(_option_name)]
OptionOrNull = Annotated[
    Option | None,
    BeforeValidator(_option),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
Printed = Annotated[MatrixValue, BeforeValidator(_printed), WithJsonSchema(_SCALAR_SCHEMA)]
Variable = Annotated[Any, BeforeValidator(_variable)]
_AMOUNT_SCHEMA: Final = WithJsonSchema({"type": ["string", "number"], "minimum": 0})
Dollars = Annotated[
    StrictStr, BeforeValidator(_as_amount), AfterValidator(_dollars), _AMOUNT_SCHEMA
]
DollarsOrVariable = Annotated[
    StrictStr, BeforeValidator(_as_amount), AfterValidator(_dollars_or_variable), _AMOUNT_SCHEMA
]
ShareOrDollars = Annotated[
    StrictStr, BeforeValidator(_as_amount), AfterValidator(_share_or_dollars), _AMOUNT_SCHEMA
]
Name = Annotated[Text, AfterValidator(check_name)]
EnvironmentName = Annotated[Text, AfterValidator(_environment_name)]


def _as_count(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


VersionCount = Annotated[
    StrictInt,
    Field(ge=0, le=99),
    BeforeValidator(_as_count),
    WithJsonSchema(
        {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 99}]}
    ),
]
"""How many; ``true`` is one."""


def _web_url(url: str) -> str:
    if url.startswith(_VARIABLE):
        return url
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    # Not shown: the URL itself is often the secret.
    if not host or not url.startswith(("https://", "http://")):
        raise ValueError("not a valid URL; expected https://HOST/..., or a ${NAME} that holds it")
    if url.startswith("http://") and not is_loopback(host) and not host.startswith(_VARIABLE):
        raise ValueError("http:// would send it unencrypted; expected https://")
    return url


WebUrl = Annotated[Text, AfterValidator(_web_url)]
Delimiter = Annotated[StrictStr, AfterValidator(check_delimiter)]
EncodingName = Annotated[Text, AfterValidator(check_encoding)]


_REFRESH: Final = r"^(changed|always|[1-9][0-9]{0,3}d)$"


def is_refresh(text: str) -> bool:
    """Return whether a text says when to regenerate an image: ``changed``, ``always``, ``30d``."""
    return re.fullmatch(_REFRESH, text) is not None


def _refresh(text: str) -> str:
    if not is_refresh(text):
        raise ValueError(f"expected changed, always or an age like 30d, got {text!r}")
    return text


Refresh = Annotated[
    StrictStr,
    AfterValidator(_refresh),
    WithJsonSchema({"type": "string", "pattern": _REFRESH}),
]
