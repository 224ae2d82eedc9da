"""What a user would write: the official SDK, a semaphore, gather, and a download.

The download is by the library that the SDK brings: httpx2 since its version 3, httpx before.
"""

from __future__ import annotations

import asyncio
import base64

from openai import AsyncOpenAI

from tests.bench.arguments import Work, parse

try:
    import httpx2 as httpx
except ImportError:
    import httpx  # type: ignore[no-redef]


async def main(work: Work) -> None:
    """Make an image for each row."""
    semaphore = asyncio.Semaphore(work.in_flight)
    async with AsyncOpenAI(base_url=work.base_url) as client, httpx.AsyncClient() as http:

        async def make(name: str, prompt: str) -> None:
            async with semaphore:
                result = await client.images.generate(model="gpt-image-2", prompt=prompt)
                assert result.data
                image = result.data[0]
                if image.b64_json:
                    data = base64.b64decode(image.b64_json)
                else:
                    assert image.url
                    response = await http.get(image.url, timeout=120)
                    data = response.raise_for_status().content
                (work.out / f"{name}.png").write_bytes(data)

        await asyncio.gather(*(make(name, prompt) for name, prompt in work.prompts()))


if __name__ == "__main__":
    asyncio.run(main(parse()))
