"""Draw the contact sheet of README.md: ``python -m tests.contact_sheet``.

It runs jobs/demo.yaml on the local endpoint and joins the images in ``.github/contact-sheet.webp``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from tests.support import pages, rig

SHEET: Final = pages.ROOT / ".github" / "contact-sheet.webp"
COLUMNS: Final = 4
SIDE: Final = 240
CAPTION: Final = 24
GAP: Final = 12


def contact_sheet(images: dict[str, Path]) -> Image.Image:
    """Return the images with their names, four in a row."""
    rows = -(-len(images) // COLUMNS)
    width = GAP + COLUMNS * (SIDE + GAP)
    sheet = Image.new("RGB", (width, GAP + rows * (SIDE + CAPTION + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (name, path) in enumerate(images.items()):
        row, column = divmod(index, COLUMNS)
        left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + CAPTION + GAP)
        with Image.open(path) as image:
            small = image.convert("RGB")
            small.thumbnail((SIDE, SIDE))
        sheet.paste(small, (left + (SIDE - small.width) // 2, top + (SIDE - small.height) // 2))
        draw.text((left, top + SIDE + 4), name, fill="black", font=ImageFont.load_default(14))
    return sheet


def main() -> None:
    """Run the demo and write the sheet."""
    with tempfile.TemporaryDirectory() as directory:
        pages.copy_examples(Path(directory))
        rig.batchgen("run", "jobs/demo.yaml", cwd=Path(directory))
        made = Path(directory, "jobs/out/demo")
        files = sorted(path for path in made.rglob("*") if path.is_file())
        images = {path.relative_to(made).as_posix()[:32]: path for path in files}
        contact_sheet(images).save(SHEET, quality=80)
    print(f"{SHEET.name}: {SHEET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
