"""The manifest as a typed document; its JSON Schema is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr

from batchgen.job import Verify

Text = Annotated[StrictStr, Field(min_length=1)]
Option = StrictBool | StrictInt | StrictFloat | StrictStr
MatrixValue = StrictBool | StrictInt | StrictFloat | StrictStr


class Model(BaseModel):
    """Closed and frozen: a key that is not named below is a mistake of its writer."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProviderSpec(Model):
    """An OpenAI-compatible endpoint; `${NAME}` in its texts is taken from the environment."""

    name: Text | None = Field(
        None,
        description="its name in ledger and fingerprints: a built-in provider to extend, "
        "or any; default: the host of base_url",
    )
    base_url: Text | None = Field(None, description="ends in /v1; http:// only on loopback")
    api_key_env: Text | None = Field(None, description="environment variable that holds the key")
    price: Text | StrictInt | StrictFloat | None = Field(
        None, description="dollars per picture, where no price list says it"
    )
    idempotency: Literal["none", "replay"] | None = Field(
        None,
        description="replay: the endpoint answers a repeated Idempotency-Key without billing again",
    )


class FileRows(Model):
    """A table in a file: csv, tsv, jsonl or json, told by its ending."""

    file: Text
    where: Text | None = Field(
        None, description="a Jinja expression; only rows for which it is true are used"
    )


class SqliteRows(Model):
    """The result of one query on a SQLite file, opened read-only."""

    sqlite: Text
    query: Text
    where: Text | None = None


class Output(Model):
    """Where pictures go and how they are checked."""

    dir: Text | None = Field(
        None, description="folder for all pictures, relative to the manifest; default: out/NAME"
    )
    path: Text | None = Field(
        None, description="template of a picture's path below dir; default: {{ key }}.{{ ext }}"
    )
    verify: Verify | None = Field(None, description="structure (default) or decode")
    keep_previous: StrictBool | None = Field(
        None, description="keep the picture that a new one replaces, below .previous/"
    )


class Limits(Model):
    """How fast, how long and for how much."""

    concurrency: Annotated[StrictInt, Field(ge=1, le=4096)] | None = Field(
        None, description="requests in flight; default 8"
    )
    downloads: Annotated[StrictInt, Field(ge=1, le=256)] | None = Field(
        None, description="downloads at the same time; default 8"
    )
    requests_per_minute: Annotated[StrictInt | StrictFloat, Field(gt=0)] | None = None
    images_per_minute: Annotated[StrictInt | StrictFloat, Field(gt=0)] | None = None
    burst: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="requests the endpoint takes at once on top of the even rate; default 1"
    )
    max_cost: Text | StrictInt | StrictFloat | None = Field(
        None, description="dollars a run may cost, doubt included"
    )
    max_waste: Text | StrictInt | StrictFloat | None = Field(
        None, description="doubt that may be bought again: a share like 5% or dollars; default 5%"
    )
    deadline: Annotated[StrictInt | StrictFloat, Field(gt=0, le=86_400)] | None = Field(
        None, description="seconds for one request, default 300"
    )
    max_probes: Annotated[StrictInt, Field(ge=1, le=100)] | None = None
    unreachable: Annotated[StrictInt | StrictFloat, Field(gt=0)] | None = Field(
        None, description="seconds without a connection after which the run stops; default 300"
    )


Refresh = Annotated[
    StrictStr,
    Field(
        pattern=r"^(changed|always|[1-9][0-9]{0,3}d)$",
        description="changed, always, or an age like 30d",
    ),
]


class JobSpec(Model):
    """The keys that the manifest and each of its explicit jobs share."""

    model: Text | None = None
    key: Text | None = Field(None, description="template of the job's key")
    prompt: Text | None = Field(None, description="template of the prompt")
    matrix: (
        Annotated[dict[str, Annotated[list[MatrixValue], Field(min_length=1)]], Field()] | None
    ) = None
    options: dict[str, Option | None] | None = Field(
        None,
        description="request parameters under the API's names; null removes an inherited one",
    )
    images: list[Text] | None = Field(None, description="reference images, files or URLs")
    mask: Text | None = None
    count: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="pictures per job line; each is a request of its own"
    )
    output: Output | None = None
    refresh: Refresh | None = None
    tags: list[Text] | None = None


class JobEntry(JobSpec):
    """One explicit job; it may override any key of the manifest."""

    values: dict[str, Any] | None = Field(None, description="template variables of this job")


class Manifest(JobSpec):
    """What to make, with which options, and where to put it."""

    name: Text | None = Field(
        None, description="the batch's identity in the ledger; default: the file's stem"
    )
    provider: Text | ProviderSpec = "crazyrouter"
    rows: Text | FileRows | SqliteRows | None = None
    limits: Limits = Limits()
    jobs: list[Text | JobEntry] | None = None
