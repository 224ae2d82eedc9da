"""The manifest as a typed document; its JSON Schema is made from these classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from batchgen.job import Publish, Verify
from batchgen.manifest.field_types import (
    Delimiter,
    Dollars,
    DollarsOrVariable,
    EncodingName,
    EnvironmentName,
    Name,
    OptionName,
    OptionOrNull,
    OutputRoot,
    Printed,
    Rate,
    Refresh,
    Seconds,
    SecondsOrZero,
    ShareOrDollars,
    Text,
    Variable,
    VersionCount,
    WebUrl,
    has_variable,
)
from batchgen.urls import check_base_url


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
    insecure_http: StrictBool = Field(
        False,
        description="allow http:// in base_url for a host in a private network, which then also"
        " serves its images",
    )
    base_url: Text | None = Field(
        None, description="ends in /v1; http:// only on loopback, or with insecure_http"
    )
    proxy: Text | None = Field(
        None, description="an HTTP proxy, http://USER:PASSWORD@HOST:PORT; default: BATCHGEN_PROXY"
    )
    ca_file: Text | None = Field(
        None,
        description="a PEM file with certificates to trust in addition; default: BATCHGEN_CA_FILE",
    )
    keep_alive: StrictBool = Field(
        True,
        description="let a paid request use the connection of an earlier one that ended less than"
        " 1 s ago, where the server is known to keep it; false: a new one for each",
    )
    trust_store: Literal["bundled", "system"] | None = Field(
        None, description="system: trust what the operating system trusts; default: bundled"
    )
    api_key_env: EnvironmentName | None = Field(
        None, description="environment variable that holds the key"
    )
    price: DollarsOrVariable | None = Field(
        None, description="dollars per image, where no price list says it"
    )
    idempotency: Literal["none", "replay"] | None = Field(
        None,
        description="replay: the endpoint repeats its response to a repeated Idempotency-Key"
        " without billing again",
    )
    server_errors: _MayBill | None = Field(
        None,
        description="what a 500 or 502 in the endpoint's own words costs; maybe makes the job"
        " uncertain",
    )
    refusals: _MayBill | None = Field(
        None, description="what a refused request costs, also one refused for its content"
    )
    routes: dict[Text, Literal["images", "gemini", "video"]] | None = Field(
        None, description="models that are asked on a route other than their usual one"
    )

    @field_validator("base_url")
    @classmethod
    def _is_encrypted(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or has_variable(url):
            return url
        return check_base_url(url, insecure_http=info.data.get("insecure_http", False))


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
        " url_handle, product_id, item_group_id, parent or id, the first that the table has",
    )
    allow_empty: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="columns that prompts, keys and images may print empty without a warning"
    )


class FileRows(_Rows):
    """A table in a file: csv, tsv, txt, jsonl, json or parquet, by its ending.

    All but parquet may also be compressed: .gz or .zst.
    """

    file: Text = Field(description="the table, relative to the manifest or s3://BUCKET/NAME")
    delimiter: Delimiter | None = Field(
        None,
        description="what separates the columns: one character, or comma, semicolon, tab or pipe;"
        " default: what splits the first rows evenly",
    )
    encoding: EncodingName | None = Field(
        None, description="encoding of the file, such as windows-1252; default: UTF-8, or found"
    )


class SqliteRows(_Rows):
    """The result of one query on a SQLite file, opened read-only."""

    sqlite: Text = Field(description="the database file, relative to the manifest")
    query: Text = Field(description="one SELECT; its columns are the template variables")


class Storage(Model):
    """How buckets are reached; credentials are in the environment."""

    endpoint: Text | None = Field(
        None, description="URL of an S3-compatible service; default: AWS_ENDPOINT_URL, else AWS"
    )
    region: Text | None = Field(None, description="default: AWS_REGION")
    single_writer: StrictBool = Field(
        False,
        description="promise that no other program writes below the prefix, so that a service"
        " without conditional writes may be used",
    )


class Output(Model):
    """Where images go and how they are checked."""

    dir: OutputRoot | None = Field(
        None,
        description="directory for all images, relative to the manifest, or a bucket such as"
        " s3://BUCKET/PREFIX; default: out/NAME",
    )
    path: Text | None = Field(
        None, description="template of an image's path below dir; default: {{ key }}.{{ ext }}"
    )
    verify: Verify | None = Field(None, description="structure (default) or decode")
    keep_previous: VersionCount | None = Field(
        None,
        description="how many previous versions are kept below .previous/; default 1, 0 for none",
    )
    keep_partials: StrictBool | None = Field(
        None, description="keep the unfinished images of a streamed response, below .partial/"
    )
    sidecar: StrictBool | None = Field(
        None, description="write NAME.json next to each image: prompt, options, cost, request id"
    )
    metadata: StrictBool | None = Field(
        None,
        description="write prompt, model, key, cost and request id into each image, as XMP; into a"
        " sidecar if that would break its signature",
    )
    publish: Publish | None = Field(
        None,
        description="at_once (default), or on_accept: an image waits below .pending/ until it is"
        " accepted in `batchgen review`, and the published one stays until then",
    )


class Notifier(Model):
    """A receiver of run reports; `${NAME}` in its URLs is taken from the environment."""

    command: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="a program with its arguments; it gets the report as JSON on stdin"
    )
    webhook: WebUrl | None = Field(None, description="gets the report as JSON by POST")
    apprise: Text | None = Field(None, description="an Apprise URL; gets the report as text")
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
    requests_per_minute: Rate | None = Field(
        None, description="requests begun in a minute, evenly spread; default: no limit"
    )
    images_per_minute: Rate | None = Field(
        None, description="images requested in a minute; default: no limit"
    )
    burst: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="requests the endpoint takes at once on top of the even rate; default 1"
    )
    max_cost: Dollars | None = Field(
        None, description="dollars a run may cost, possibly charged amounts included"
    )
    max_waste: ShareOrDollars | None = Field(
        None,
        description="limit of rebuying uncertain requests: a share like 5% or dollars; default 5%",
    )
    deadline: Seconds | None = Field(None, description="seconds for one request, default 300")
    poll: Seconds | None = Field(
        None, description="seconds between two questions for a video; default 10"
    )
    download_wait: SecondsOrZero | None = Field(
        None,
        description="seconds to retry failed downloads after all other work is done; default 60",
    )
    max_probes: Annotated[StrictInt, Field(ge=1, le=100)] | None = Field(
        None,
        description="uncertain probes after which an open circuit breaker stops the run; default 3",
    )
    canary: Annotated[StrictInt, Field(ge=1, le=100)] | None = Field(
        None, description="paid requests at most before the first image is on disk; default 3"
    )
    max_useless: Annotated[StrictInt, Field(ge=1, le=1000)] | None = Field(
        None, description="requests in a row without an image after which a run pauses; default 5"
    )
    unreachable: Seconds | None = Field(
        None, description="seconds without a connection after which the run stops; default 300"
    )


class JobSpec(Model):
    """The keys that the manifest and each of its explicit jobs share."""

    model: Text | None = Field(
        None, description="the provider's model, or a template of it; default: the provider's"
    )
    key: Text | None = Field(None, description="template of the job's key")
    prompt: Text | None = Field(None, description="template of the prompt")
    matrix: dict[StrictStr, Annotated[list[Printed], Field(min_length=1)]] | None = Field(
        None,
        description="lists of values; each combination of them is a job with its variables. An axis"
        " called model chooses the model",
    )
    options: dict[OptionName, OptionOrNull] | None = Field(
        None,
        description="request parameters under the API's names; null removes an inherited one",
    )
    images: list[Text] | None = Field(
        None, description="reference images, files or https:// URLs: the edits route"
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

    values: dict[StrictStr, Variable] | None = Field(
        None, description="template variables of this job"
    )


class Manifest(JobSpec):
    """What to make, with which options, and where to put it."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["jobs"]}, {"required": ["prompt"]}],
            "dependentRequired": {"rows": ["prompt"]},
        }
    )

    name: Name | None = Field(
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
    images_root: Text | None = Field(
        None,
        description="a directory outside of the manifest's own in which cells of the table may name"
        " reference images; relative to the manifest",
    )
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
    storage: Storage | None = Field(
        None, description="how buckets are reached, where output.dir is one"
    )
    on_finish: Annotated[list[Notifier], Field(min_length=1)] | None = Field(
        None, description="who receives the report of a run"
    )
    ping: WebUrl | None = Field(
        None,
        description="URL of a health check: requested with /start appended when a run begins, as"
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
