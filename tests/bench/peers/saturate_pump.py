"""saturate: its pump for the requests; the responses land in its parquet files.

It has no downloads, so with images given by URL it does half of the work.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from saturate import Fixed, pump

from tests.bench.arguments import Work, parse


def main(work: Work) -> None:
    """Make an image for each row."""

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        return {"model": "gpt-image-2", "prompt": row["prompt"]}

    def keep(row: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
        image = response["data"][0]
        if image.get("b64_json"):
            data = base64.b64decode(image["b64_json"])
            (work.out / f"{row['id']}.png").write_bytes(data)
            return {"file": row["id"]}
        return {"url": image["url"]}

    pump(
        ({"id": name, "prompt": prompt} for name, prompt in work.prompts()),
        ask,
        keep,
        work.base_url,
        str(work.out.with_name("parquet")),
        window=Fixed(work.in_flight),
        route="/images/generations",
        headers={"Authorization": f"Bearer {os.environ['OPENAI_API_KEY']}"},
        id_key="id",
        signal_source="none",
    )


if __name__ == "__main__":
    main(parse())
