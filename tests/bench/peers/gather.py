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
    """Make a picture for each row."""
    semaphore = asyncio.Semaphore(work.in_flight)
    async with AsyncOpenAI(base_url=work.base_url) as client, httpx.AsyncClient() as http:

        async def make(name: str, prompt: str) -> None:
            async with semaphore:
                answer = await client.images.generate(model="gpt-image-2", prompt=prompt)
                assert answer.data
                picture = answer.data[0]
                if picture.b64_json:
                    data = base64.b64decode(picture.b64_json)
                else:
                    assert picture.url
                    response = await http.get(picture.url, timeout=120)
                    data = response.raise_for_status().content
                (work.out / f"{name}.png").write_bytes(data)

        await asyncio.gather(*(make(name, prompt) for name, prompt in work.prompts()))


if __name__ == "__main__":
    asyncio.run(main(parse()))
