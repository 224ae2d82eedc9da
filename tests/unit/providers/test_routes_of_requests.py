"""A response is read by the adapter that built its request, also after a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batchgen.providers.adapters.registry import ADAPTERS, Route
from tests.support.adapters import ATTEMPT, BASE, JOB


@pytest.mark.parametrize("route", list(Route))
def test_each_adapter_names_its_route(route: Route) -> None:
    job = replace(JOB, model="some-model")
    request = ADAPTERS[route].build_request(job, ATTEMPT, BASE)
    assert request.route == route
