"""The manifest as a typed document; its JSON Schema is made from these classes.

The types below take values as `batchgen.manifest.yaml_reader` gives them, and plain Python ones.
Amounts of money stay the text they were written as.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from batchgen.job import Verify
from batchgen.manifest.yaml_scalars import Ambiguous, Null
from batchgen.money import parse_dollars
from batchgen.urls import check_base_url, is_loopback

MAX_NAME_CHARS: Final = 100
_MAX_AMOUNT_CHARS: Final = 40
_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_AMBIGUOUS: Final = "YAML readers take this for different things"
_VARIABLE: Final = "${"
"""Where a text of `provider` holds it, its value is known only when the settings are read."""

_OPTIONS_OF_THE_MANIFEST: Final = {
    "n": "count: says how many images to make; each is a request of its own",
    "prompt": "prompt: is a key of its own, beside options:",
    "model": "model: is a key of its own, beside options:",
    "image": "images: is a key of its own, beside options:",
    "images": "images: is a key of its own, beside options:",
    "mask": "mask: is a key of its own, beside options:",
}


def check_name(name: str) -> str:
    """A batch's name, which is typed in a shell and names a directory. Raises ValueError."""
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"a name has 1 to {MAX_NAME_CHARS} characters, not {len(name):,}")
    if not name.isprintable():
        raise ValueError("a name holds printable characters only")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError("a name is no path; leave out / and \\")
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
            raise ValueError("is no amount in dollars, like 12.50")
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
    if not re.fullmatch(r"\s*[0-9]+(\.[0-9]+)?\s*", number) or Decimal(number.strip()) > 100:
        raise ValueError(f"{text!r} is not a share from 0% to 100%")
    return text


def _option_name(name: str) -> str:
    if name in _OPTIONS_OF_THE_MANIFEST:
        raise ValueError(_OPTIONS_OF_THE_MANIFEST[name])
    return name


def _scalar(value: object) -> object:
    """The value as pydantic knows it; says what is wrong where a union would say it for each."""
    if isinstance(value, Ambiguous):
        raise ValueError(f"{_AMBIGUOUS}; quote it: '{value.text[:40]}'")
    if isinstance(value, list | dict):
        found = "a list" if isinstance(value, list) else "a mapping"
        raise ValueError(f"expected a text, a number, true or false, got {found}")
    return _as_float(value)


def _option(value: object) -> object:
    return None if isinstance(value, Null) else _scalar(value)


def _printed(value: object) -> object:
    """A value that templates print, so it must look as it was written."""
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
        raise ValueError("is no name of an environment variable; the key itself never stands here")
    return text


def _base_url(url: str) -> str:
    return url if _VARIABLE in url else check_base_url(url)


def _kind(value: object) -> str | None:
    """Which branch of a union a value is for; None for what is right in neither."""
    if isinstance(value, dict | BaseModel):
        return "mapping"
    return None if isinstance(value, list) else "text"


def _kind_of_rows(value: object) -> str | None:
    is_query = isinstance(value, SqliteRows) or (
        isinstance(value, dict) and not value.keys().isdisjoint({"sqlite", "query"})
    )
    return "query" if is_query else _kind(value)


_SCALAR_SCHEMA: Final = {"type": ["string", "number", "boolean"]}

Text = Annotated[StrictStr, Field(min_length=1), AfterValidator(_not_blank)]
Option = StrictBool | StrictInt | StrictFloat | StrictStr
MatrixValue = StrictBool | StrictInt | StrictFloat | StrictStr
_Rate = Annotated[StrictFloat, Field(gt=0), BeforeValidator(_as_float)]
_Seconds = Annotated[StrictFloat, Field(gt=0, le=86_400), BeforeValidator(_as_float)]

_OptionName = Annotated[StrictStr, AfterValidator(_option_name)]
_OptionOrNull = Annotated[
    Option | None,
    BeforeValidator(_option),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
_Printed = Annotated[MatrixValue, BeforeValidator(_printed), WithJsonSchema(_SCALAR_SCHEMA)]
_Variable = Annotated[Any, BeforeValidator(_variable)]
_AMOUNT_SCHEMA: Final = WithJsonSchema({"type": ["string", "number"], "minimum": 0})
Dollars = Annotated[
    StrictStr, BeforeValidator(_as_amount), AfterValidator(_dollars), _AMOUNT_SCHEMA
]


class Model(BaseModel):
    """Closed and frozen: a key that is not named below is a mistake of its writer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_MayBill = Literal["free", "maybe", "billed"]


class ProviderSpec(Model):
    """An OpenAI-compatible endpoint; `${NAME}` in its texts is taken from the environment."""

    name: Text | None = Field(
        None,
        description="its name in ledger and fingerprints: a built-in provider to extend, "
        "or any; default: the host of base_url",
    )
    base_url: Annotated[Text, AfterValidator(_base_url)] | None = Field(
        None, description="ends in /v1; http:// only on loopback"
    )
    api_key_env: Annotated[Text, AfterValidator(_environment_name)] | None = Field(
        None, description="environment variable that holds the key"
    )
    price: (
        Annotated[
            StrictStr,
            BeforeValidator(_as_amount),
            AfterValidator(_dollars_or_variable),
            _AMOUNT_SCHEMA,
        ]
        | None
    ) = Field(None, description="dollars per image, where no price list says it")
    idempotency: Literal["none", "replay"] | None = Field(
        None,
        description="replay: the endpoint answers a repeated Idempotency-Key without billing again",
    )
    server_errors: _MayBill | None = Field(
        None,
        description="what a 500 or 502 in the endpoint's own words costs; maybe makes it a doubt",
    )
    refusals: _MayBill | None = Field(
        None, description="what a refused request costs, also one refused for its content"
    )
    routes: dict[Text, Literal["images", "gemini", "video"]] | None = Field(
        None, description="models that are asked on a route other than their usual one"
    )


class _Rows(Model):
    where: Text | None = Field(
        None, description="a Jinja expression; only rows for which it is true are used"
    )
    strict: StrictBool = Field(
        False,
        description="refuse the whole manifest if one row is at fault; by default its job fails"
        " alone, unless more than half of the rows are at fault",
    )
    fill: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="columns of which empty cells take the value of the row above, within the"
        " rows of one product",
    )
    fill_by: Text | None = Field(
        None,
        description="the column that is equal in all rows of a product; default: handle,"
        " product_id, item_group_id, parent or id, the first that the table has",
    )
    allow_empty: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="columns that prompts, keys and images may print empty without a warning"
    )


class FileRows(_Rows):
    """A table in a file: csv, tsv, jsonl or json, by its ending."""

    file: Text = Field(description="the table, relative to the manifest")


class SqliteRows(_Rows):
    """The result of one query on a SQLite file, opened read-only."""

    sqlite: Text = Field(description="the database file, relative to the manifest")
    query: Text = Field(description="one SELECT; its columns are the template variables")


def _as_count(value: object) -> object:
    return int(value) if isinstance(value, bool) else value


_Kept = Annotated[
    StrictInt,
    Field(ge=0, le=99),
    BeforeValidator(_as_count),
    WithJsonSchema(
        {"oneOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 99}]}
    ),
]
"""How many; ``true`` is one."""


class Output(Model):
    """Where images go and how they are checked."""

    dir: Text | None = Field(
        None, description="directory for all images, relative to the manifest; default: out/NAME"
    )
    path: Text | None = Field(
        None, description="template of an image's path below dir; default: {{ key }}.{{ ext }}"
    )
    verify: Verify | None = Field(None, description="structure (default) or decode")
    keep_previous: _Kept | None = Field(
        None,
        description="how many previous versions are kept below .previous/; default 1, 0 for none",
    )
    keep_partials: StrictBool | None = Field(
        None, description="keep the unfinished images of a streamed answer, below .partial/"
    )
    sidecar: StrictBool | None = Field(
        None, description="write NAME.json beside each image: prompt, options, cost, request id"
    )
    metadata: StrictBool | None = Field(
        None, description="write prompt, model, key, cost and request id into each image, as XMP"
    )


def _web_address(url: str) -> str:
    if url.startswith(_VARIABLE):
        return url
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    # Not shown: the address itself is often the secret.
    if not host or not url.startswith(("https://", "http://")):
        raise ValueError("not a valid URL; expected https://HOST/..., or a ${NAME} that holds it")
    if url.startswith("http://") and not is_loopback(host) and not host.startswith(_VARIABLE):
        raise ValueError("http:// would send it unencrypted; expected https://")
    return url


_WebAddress = Annotated[Text, AfterValidator(_web_address)]


class Notifier(Model):
    """Somebody who is told how a run ended; `${NAME}` in addresses is from the environment."""

    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="a program with its arguments; it gets the report as JSON on stdin"
    )
    webhook: _WebAddress | None = Field(None, description="gets the report as JSON by POST")
    apprise: Text | None = Field(None, description="an Apprise address; gets the report as text")
    only_if: Literal["failed", "always"] = Field(
        "always", description="failed: only when the exit code of the run is not 0"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Notifier:
        if [self.command, self.webhook, self.apprise].count(None) != 2:
            raise ValueError("expected exactly one of command, webhook and apprise")
        return self


class Limits(Model):
    """How fast, how long and for how much."""

    concurrency: Annotated[StrictInt, Field(ge=1, le=4096)] | None = Field(
        None, description="requests in flight; default 8"
    )
    downloads: Annotated[StrictInt, Field(ge=1, le=256)] | None = Field(
        None, description="downloads at the same time; default 8"
    )
    requests_per_minute: _Rate | None = Field(
        None, description="requests begun in a minute, evenly spread; default: no limit"
    )
    images_per_minute: _Rate | None = Field(
        None, description="images asked for in a minute; default: no limit"
    )
    burst: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="requests the endpoint takes at once on top of the even rate; default 1"
    )
    max_cost: Dollars | None = Field(None, description="dollars a run may cost, doubt included")
    max_waste: (
        Annotated[
            StrictStr,
            BeforeValidator(_as_amount),
            AfterValidator(_share_or_dollars),
            _AMOUNT_SCHEMA,
        ]
        | None
    ) = Field(
        None, description="doubt that may be bought again: a share like 5% or dollars; default 5%"
    )
    deadline: _Seconds | None = Field(None, description="seconds for one request, default 300")
    poll: _Seconds | None = Field(
        None, description="seconds between two questions for a video; default 10"
    )
    download_wait: (
        Annotated[StrictFloat, Field(ge=0, le=86_400), BeforeValidator(_as_float)] | None
    ) = Field(
        None,
        description="seconds to go on with failed downloads when all else is done; default 60",
    )
    max_probes: Annotated[StrictInt, Field(ge=1, le=100)] | None = Field(
        None, description="doubtful probes after which an open breaker stops the run; default 3"
    )
    canary: Annotated[StrictInt, Field(ge=1, le=100)] | None = Field(
        None, description="paid requests at most before the first image is on disk; default 3"
    )
    max_useless: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="requests in a row without an image after which a run pauses; default 5"
    )
    unreachable: _Seconds | None = Field(
        None, description="seconds without a connection after which the run stops; default 300"
    )


_REFRESH: Final = r"^(changed|always|[1-9][0-9]{0,3}d)$"


def is_refresh(text: str) -> bool:
    """Whether a text says when an image is made anew: ``changed``, ``always``, ``30d``."""
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


class JobSpec(Model):
    """The keys that the manifest and each of its explicit jobs share."""

    model: Text | None = Field(None, description="the provider's model; default: the provider's")
    key: Text | None = Field(None, description="template of the job's key")
    prompt: Text | None = Field(None, description="template of the prompt")
    matrix: dict[StrictStr, Annotated[list[_Printed], Field(min_length=1)]] | None = Field(
        None, description="lists of values; each combination of them is a job with its variables"
    )
    options: dict[_OptionName, _OptionOrNull] | None = Field(
        None,
        description="request parameters under the API's names; null removes an inherited one",
    )
    images: list[Text] | None = Field(
        None, description="reference images, files or https:// addresses: the edits route"
    )
    mask: Text | None = Field(None, description="mask of the first reference image, a png file")
    count: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="images per job line; each is a request of its own"
    )
    output: Output | None = Field(None, description="where images go and how they are checked")
    refresh: Refresh | None = Field(
        None, description="when to make an image again: changed (default), always or an age: 30d"
    )
    tags: list[Text] | None = Field(None, description="words to group by in reports")

    @field_validator("options", mode="before")
    @classmethod
    def _one_image_a_request(cls, options: object) -> object:
        """Drop ``n: 1``, which says what every request does; any other number is an error."""
        if isinstance(options, dict) and type(options.get("n")) is int and options["n"] == 1:
            return {name: value for name, value in options.items() if name != "n"}
        return options


class JobEntry(JobSpec):
    """One explicit job; it may override any key of the manifest."""

    values: dict[StrictStr, _Variable] | None = Field(
        None, description="template variables of this job"
    )


class Manifest(JobSpec):
    """What to make, with which options, and where to put it."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["jobs"]}, {"required": ["prompt"]}],
            "dependentRequired": {"rows": ["prompt"], "matrix": ["prompt"]},
        }
    )

    name: Annotated[Text, AfterValidator(check_name)] | None = Field(
        None, description="the batch's identity in the ledger; default: the file's stem"
    )
    provider: Annotated[
        Annotated[Text, Tag("text")] | Annotated[ProviderSpec, Tag("mapping")],
        Discriminator(_kind),
    ] = Field(
        "crazyrouter", description="crazyrouter, openai, local, or the description of an endpoint"
    )
    rows: (
        Annotated[
            Annotated[Text, Tag("text")]
            | Annotated[FileRows, Tag("mapping")]
            | Annotated[SqliteRows, Tag("query")],
            Discriminator(_kind_of_rows),
        ]
        | None
    ) = Field(None, description="a table of which each row is a job: a file, or a SQLite query")
    partial: StrictBool = Field(
        False,
        description="these are some jobs of a larger batch of this name: the others keep their"
        " state, and none is retired",
    )
    share: StrictBool = Field(
        False,
        description="one request for all jobs with the same model, options, prompt and reference"
        " images: the others get a copy of its image",
    )
    rules: Literal["refuse", "warn"] = Field(
        "refuse",
        description="what becomes of jobs against the provider's known rules: no plan (refuse), or"
        " a warning and a paid request (warn)",
    )
    on_finish: Annotated[list[Notifier], Field(min_length=1)] | None = Field(
        None, description="who is told how a run ended, with its report"
    )
    ping: _WebAddress | None = Field(
        None,
        description="address of a health check: asked with /start behind it when a run begins, as"
        " it is when all is done, and with /fail otherwise",
    )
    limits: Limits = Field(
        default_factory=Limits, description="how fast, how long and for how much"
    )
    jobs: (
        Annotated[
            list[
                Annotated[
                    Annotated[Text, Tag("text")] | Annotated[JobEntry, Tag("mapping")],
                    Discriminator(_kind),
                ]
            ],
            Field(min_length=1),
        ]
        | None
    ) = Field(None, description="explicit jobs: prompts, or mappings that override what is above")
