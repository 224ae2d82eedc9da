"""Error objects in the shapes of providers, and any other JSON."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.outcomes.classify import ErrorBody
from batchgen.providers.adapters.error_objects import error_of

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)
_FIELDS = st.sampled_from(
    [
        "error",
        "errors",
        "detail",
        "details",
        "code",
        "message",
        "msg",
        "status",
        "type",
        "data",
        "base_resp",
        "status_code",
        "Response",
        "Error",
        "inner_error",
        "metadata",
        "violations",
        "retryDelay",
        "quotaId",
        "success",
        "title",
        "name",
    ]
)
_DOCUMENTS = st.recursive(
    _JSON,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner),
    max_leaves=20,
)


@given(st.dictionaries(_FIELDS, _DOCUMENTS))
def test_any_document_holds_an_error_or_none(document: dict[str, object]) -> None:
    error = error_of(document)
    if error is not None:
        assert any((error.code, error.type, error.message, error.names))
        assert all(error.all_names())
        assert error.retry_after_s is None or error.retry_after_s > 0


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"data": [], "code": 200, "msg": "ok"}, None),
        ({"data": [1], "code": 7, "message": "x"}, None),
        ({"error": {}}, None),
        ({"error": {"code": 0, "message": ""}}, None),
        ({"base_resp": {"status_code": 0, "status_msg": "success"}}, None),
        ({"error": "no"}, ErrorBody(message="no")),
        ({"code": "x", "message": "no"}, ErrorBody(message="no", code="x")),
        ({"success": False, "message": "no"}, ErrorBody(message="no", envelope=False)),
        ({"detail": "no"}, ErrorBody(message="no", envelope=False)),
        (
            {"type": "about:blank", "title": "Bad", "status": 400, "detail": "size is wrong"},
            ErrorBody(message="size is wrong", envelope=False),
        ),
        (
            {"detail": [{"loc": ["body"], "msg": "not valid", "type": "type_error.enum"}]},
            ErrorBody(message="not valid", type="type_error.enum", envelope=False),
        ),
        (
            {"name": "bad_request", "errors": ["a", "b"]},
            ErrorBody(message="a; b", code="bad_request", envelope=False),
        ),
        (
            {"error": {"code": 429, "message": "x", "details": [{"retryDelay": "46s"}]}},
            ErrorBody(code="429", message="x", retry_after_s=46),
        ),
    ],
)
def test_error_object_is_read(document: dict[str, object], error: ErrorBody | None) -> None:
    assert error_of(document) == error
