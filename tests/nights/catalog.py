"""A catalog and its manifest, and the edits that people make to both."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support import canary, rig

PATHS: Final = ("{{ file }}.{{ ext }}", "v/{{ file }}.{{ ext }}", "{{ file }}/main.{{ ext }}")
DIRECTORIES: Final = ("out", "out2")
"""Where images are saved: one of these at a time."""
PUBLISH: Final = ("at_once", "on_accept")
FORMATS: Final = ("png", "webp")
STYLES: Final = ("", " soft light")
COLORS: Final = ("red", "green", "blue")
BLOCKED_WORD: Final = "forbidden-word"
"""The endpoint blocks prompts that contain it."""
COLUMNS: Final = ("handle", "title", "file", "flag")
MANIFEST: Final = """\
name: batch
provider: {{name: local, base_url: {base_url!r}, api_key_env: {variable}}}
rows: {{file: products.csv, allow_empty: [flag]}}
key: "{key}"
prompt: "{prompt}"
options: {{size: 1024x640, output_format: {extension}{stream}}}
count: {count}
share: {share}
output: {{dir: {directory}, path: "{path}", publish: {publish}, sidecar: {sidecar},
         keep_previous: 50}}
limits: {{canary: 100, concurrency: 4, download_wait: 0, max_useless: 1000, max_probes: 1}}
"""
"""Its limits keep runs at a failing endpoint from pauses of a minute."""


@dataclass(slots=True)
class Row:
    """A product."""

    handle: str
    title: str
    file: str
    flag: str = ""
    old_title: str = ""


@dataclass(slots=True)
class Catalog:
    """The rows and the settings of a manifest."""

    base_url: str
    publish: str
    share: bool
    sidecar: bool
    has_views: bool
    """Whether each row has two jobs, of two views."""
    has_photo: bool
    """Whether the images are edits of a photo."""
    directory: str = DIRECTORIES[0]
    path: str = PATHS[0]
    extension: str = FORMATS[0]
    style: str = ""
    count: int = 1
    streams: bool = False
    rows: dict[str, Row] = field(default_factory=dict)
    removed: list[Row] = field(default_factory=list)
    number: int = 0

    @classmethod
    def new(cls, base_url: str, dice: random.Random) -> Catalog:
        """Return a catalog of four rows with settings by chance."""
        catalog = cls(
            base_url=base_url,
            publish=dice.choice(PUBLISH),
            share=dice.random() < 0.33,
            sidecar=dice.random() < 0.5,
            has_views=dice.random() < 0.33,
            has_photo=dice.random() < 0.33,
        )
        for _ in range(4):
            catalog.add(dice)
        return catalog

    def write(self, directory: Path, dice: random.Random) -> None:
        """Write the manifest, and the table with its rows in any order."""
        rows = list(self.rows.values())
        dice.shuffle(rows)
        with (directory / "products.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            table.writerows([row.handle, row.title, row.file, row.flag] for row in rows)
        text = self._manifest()
        if self.has_photo:
            photo = directory / "photo.png"
            if not photo.exists():
                rig.image(photo, "red", (64, 64))
            text += "images: [photo.png]\n"
        if self.has_views:
            text += "matrix: {view: [front, side]}\n"
        (directory / "batch.yaml").write_text(text, encoding="utf-8")

    def _manifest(self) -> str:
        key, path, view = "{{ handle }}", self.path, ""
        if self.has_views:
            key += "/{{ view }}"
            path = path.replace("{{ file }}", "{{ file }}-{{ view }}")
            view = " {{ view }}"
        # Without the handle, rows of one title have one prompt and share its image.
        handle = "" if self.share else "{{ handle }} "
        blocked = f"{{{{ ' {BLOCKED_WORD}' if flag == 'blocked' else '' }}}}"
        return MANIFEST.format(
            base_url=self.base_url,
            variable=canary.VARIABLE,
            key=key,
            prompt=f"{handle}{{{{ title }}}}{blocked}{view}{self.style}",
            extension=self.extension,
            stream=", stream: true, partial_images: 1" if self.streams else "",
            count=self.count,
            share=str(self.share).lower(),
            directory=self.directory,
            path=path,
            publish=self.publish,
            sidecar=str(self.sidecar).lower(),
        )

    def _any(self, dice: random.Random) -> Row:
        return self.rows[dice.choice(sorted(self.rows))]

    def _has_file(self, file: str) -> bool:
        return any(row.file == file for row in self.rows.values())

    # Edits. One that is not possible changes nothing.

    def add(self, dice: random.Random) -> None:
        """Add a product."""
        self.number += 1
        handle = f"p{self.number:02d}"
        title = dice.choice(COLORS) if self.share else f"edition {self.number}"
        self.rows[handle] = Row(handle, title, f"f{self.number:02d}")

    def remove(self, dice: random.Random) -> None:
        """Remove a product."""
        if len(self.rows) > 2:
            self.removed.append(self.rows.pop(dice.choice(sorted(self.rows))))

    def restore(self, dice: random.Random) -> None:
        """Let the product return that was removed last."""
        if self.removed:
            row = self.removed.pop()
            if row.handle not in self.rows and not self._has_file(row.file):
                self.rows[row.handle] = row

    def rename_key(self, dice: random.Random) -> None:
        """Give a product another key, or its first one back."""
        row = self._any(dice)
        new = row.handle[:-1] if row.handle.endswith("x") else f"{row.handle}x"
        if new not in self.rows:
            del self.rows[row.handle]
            row.handle = new
            self.rows[new] = row

    def take_file_name(self, dice: random.Random) -> None:
        """Add a product with the file name of the one that was removed last."""
        if self.removed and not self._has_file(self.removed[-1].file):
            self.add(dice)
            self.rows[f"p{self.number:02d}"].file = self.removed[-1].file

    def change_title(self, dice: random.Random) -> None:
        """Change a title, and so a prompt."""
        row = self._any(dice)
        row.old_title = row.title
        row.title += dice.choice([" new", " big"])

    def restore_title(self, dice: random.Random) -> None:
        """Undo the last change of a title, or repeat it."""
        row = self._any(dice)
        if row.old_title:
            row.title, row.old_title = row.old_title, row.title

    def change_file_name(self, dice: random.Random) -> None:
        """Give the image of a product another name."""
        self._any(dice).file += "n"

    def swap_file_names(self, dice: random.Random) -> None:
        """Exchange the file names of two products."""
        first, second = (self.rows[handle] for handle in dice.sample(sorted(self.rows), 2))
        first.file, second.file = second.file, first.file

    def block(self, dice: random.Random) -> None:
        """Give a product a prompt that the provider blocks."""
        self._any(dice).flag = "blocked"

    def unblock(self, dice: random.Random) -> None:
        """Remove what the provider blocks."""
        for row in self.rows.values():
            row.flag = ""

    def change_path(self, dice: random.Random) -> None:
        """Change the template of the paths."""
        self.path = dice.choice(PATHS)

    def change_directory(self, dice: random.Random) -> None:
        """Change the directory of the images."""
        self.directory = dice.choice(DIRECTORIES)

    def change_format(self, dice: random.Random) -> None:
        """Change the format of the images."""
        self.extension = dice.choice(FORMATS)

    def change_publish(self, dice: random.Random) -> None:
        """Change when images are published."""
        self.publish = dice.choice(PUBLISH)

    def change_sidecar(self, dice: random.Random) -> None:
        """Turn sidecars on or off."""
        self.sidecar = not self.sidecar

    def change_stream(self, dice: random.Random) -> None:
        """Turn streamed responses on or off."""
        self.streams = not self.streams

    def change_share(self, dice: random.Random) -> None:
        """Turn shared images on or off."""
        self.share = not self.share

    def change_count(self, dice: random.Random) -> None:
        """Change the number of images of each product."""
        self.count = dice.choice([1, 1, 2])

    def change_style(self, dice: random.Random) -> None:
        """Change all prompts."""
        self.style = dice.choice(STYLES)


Edit = Callable[[Catalog, random.Random], None]
EDITS: Final[tuple[Edit, ...]] = (
    Catalog.add,
    Catalog.add,
    Catalog.remove,
    Catalog.restore,
    Catalog.rename_key,
    Catalog.take_file_name,
    Catalog.change_title,
    Catalog.change_title,
    Catalog.change_title,
    Catalog.restore_title,
    Catalog.change_file_name,
    Catalog.swap_file_names,
    Catalog.block,
    Catalog.unblock,
    Catalog.change_path,
    Catalog.change_directory,
    Catalog.change_format,
    Catalog.change_publish,
    Catalog.change_sidecar,
    Catalog.change_stream,
    Catalog.change_share,
    Catalog.change_count,
    Catalog.change_style,
)
"""Each as often as it is drawn."""
