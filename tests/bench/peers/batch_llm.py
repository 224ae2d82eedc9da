"""async-batch-llm: its stream of prompts and its SQLite store; httpx2 for requests and images."""

from __future__ import annotations

import asyncio
import base64
import os
from typing import Any

import httpx2
from async_batch_llm import (
    ArtifactIdentity,
    CallableStrategy,
    CallOutcome,
    ResumePolicy,
    SqliteArtifactStore,
    process_stream,
)

from tests.bench.arguments import Work, parse


async def main(work: Work) -> None:
    """Make an image for each row."""
    names = {prompt: name for name, prompt in work.prompts()}
    headers = {"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"}
    async with httpx2.AsyncClient(timeout=300) as http:

        async def make(prompt: str, **_: Any) -> CallOutcome[str]:
            response = await http.post(
                f"{work.base_url}/images/generations",
                json={"model": "gpt-image-2", "prompt": prompt},
                headers=headers,
            )
            image = response.raise_for_status().json()["data"][0]
            if image.get("b64_json"):
                data = base64.b64decode(image["b64_json"])
            else:
                data = (await http.get(image["url"])).raise_for_status().content
            path = work.out / f"{names[prompt]}.png"
            path.write_bytes(data)
            return CallOutcome(output=path.name)

        identity = ArtifactIdentity(provider="bench", model="gpt-image-2")
        stream = process_stream(
            CallableStrategy(make, identity=identity),
            ((name, prompt) for prompt, name in names.items()),
            concurrency=work.in_flight,
            artifact_store=SqliteArtifactStore(work.out.with_name("store.db"), identity=identity),
            resume=ResumePolicy.REUSE_SUCCESSES,
        )
        async for result in stream:
            if not result.success:
                raise SystemExit(f"{result.item_id}: {result.error}")


if __name__ == "__main__":
    asyncio.run(main(parse()))
