"""The JSON Schema for editors agrees with the loader."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from batchgen.manifest.loader import (
    json_schema,
)
from tests.support.manifests import NIGHTLY, SHORT, faults_of, parse

# The schema


def fields_of(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    objects = {"Manifest": schema, **schema["$defs"]}
    return {
        f"{name}.{field}": value
        for name, described in objects.items()
        for field, value in described.get("properties", {}).items()
    }


def test_every_key_is_described_in_the_schema() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    fields = fields_of(schema)
    assert {"Manifest.jobs", "JobEntry.values", "Limits.max_cost", "SqliteRows.query"} <= set(
        fields
    )
    assert [name for name, field in fields.items() if not field.get("description")] == []


def test_the_schema_holds_keywords_of_json_schema_only() -> None:
    known = {"$ref", "additionalProperties", "default", "description", "enum", "items", "maximum"}
    known |= {"exclusiveMinimum", "minimum", "minItems", "minLength", "oneOf", "pattern", "type"}
    known |= {"propertyNames"}
    for name, field in fields_of(json_schema()).items():
        assert field.keys() <= known, name


def conforms(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value is right by the keywords that the schema of a manifest uses most."""
    if "$ref" in schema:
        return conforms(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "oneOf" in schema:
        return sum(conforms(value, branch, root) for branch in schema["oneOf"]) == 1
    types: dict[str, type | tuple[type, ...]] = {
        "object": dict, "array": list, "string": str, "number": (int, float), "integer": int,
        "boolean": bool, "null": type(None),
    }  # fmt: skip
    allowed = schema.get("type", list(types))
    names = [allowed] if isinstance(allowed, str) else allowed
    if not any(isinstance(value, types[name]) for name in names):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, list):
        return all(conforms(item, schema.get("items", {}), root) for item in value)
    if isinstance(value, dict):
        fields, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= set(value):
            return False
        return all(
            conforms(item, fields[key], root)
            if key in fields
            else other is True or (other is not False and conforms(item, other, root))
            for key, item in value.items()
        )
    return True


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (SHORT, True),
        (NIGHTLY, True),
        ("{rows: {sqlite: a, query: b}, prompt: x}", True),
        ("{provider: {base_url: https://x/v1}, jobs: [a]}", True),
        ("{jobs: [{prompt: x, options: {a: ~, b: 1}}]}", True),
        ("{jobs: [{promt: x}]}", False),
        ("{rows: {file: a, query: b}, prompt: x}", False),
        ("{jobs: [a], limits: {concurrency: x}}", False),
        ("{jobs: [a], output: {verify: x}}", False),
    ],
)
def test_the_schema_agrees_with_the_loader(text: str, right: bool) -> None:
    schema = json_schema()
    assert conforms(yaml.safe_load(text), schema, schema) is right
    if right:
        parse(text)
    else:
        faults_of(text)
