"""OpenAI's own Images API. It bills by tokens, so a price has to be told until `usage` is read."""

from __future__ import annotations

from typing import Final

from batchgen.providers.profile import Profile

OPENAI: Final = Profile(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_variable="OPENAI_API_KEY",
)
