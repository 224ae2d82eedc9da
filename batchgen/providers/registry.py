"""The built-in providers, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from batchgen.providers.crazyrouter import CRAZYROUTER
from batchgen.providers.local import LOCAL
from batchgen.providers.openai import OPENAI
from batchgen.providers.profile import Profile

PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile for profile in (CRAZYROUTER, OPENAI, LOCAL)
}
