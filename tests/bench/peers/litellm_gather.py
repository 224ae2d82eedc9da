"""The script of `gather.py` with LiteLLM for the request.

LiteLLM logs each request in a task of its own. If the end of the loop cancels it while it does so,
that task waits forever under Python 3.11; so the process ends without closing the loop.
"""

from __future__ import annotations

import asyncio
import base64
import os

import litellm

from tests.bench.arguments import Work, parse

try:
    import httpx2 as httpx
except ImportError:  # an SDK before 3, which LiteLLM may come with, has httpx
    import httpx  # type: ignore[no-redef]


async def main(work: Work) -> None:
    """Make an image for each row."""
    semaphore = asyncio.Semaphore(work.in_flight)
    async with httpx.AsyncClient() as http:

        async def make(name: str, prompt: str) -> None:
            async with semaphore:
                result = await litellm.aimage_generation(
                    model="openai/gpt-image-2", prompt=prompt, api_base=work.base_url
                )
                image = result.data[0]
                if image.b64_json:
                    data = base64.b64decode(image.b64_json)
                else:
                    response = await http.get(image.url, timeout=120)
                    data = response.raise_for_status().content
                (work.out / f"{name}.png").write_bytes(data)

        await asyncio.gather(*(make(name, prompt) for name, prompt in work.prompts()))
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(parse()))
