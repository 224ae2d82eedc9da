"""A static gallery: a directory, or one file, that opens without a server and says nothing private.

Files are named by the content of their images, so a second run writes only what is new. The page is
replaced last and whole; until then the old page has all its files.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from batchgen.errors import SettingsError
from batchgen.images.formats import USUAL_FORMATS, BadImage, ImageFormat
from batchgen.images.plain_copy import plain_copy
from batchgen.images.strip import without_metadata
from batchgen.ledger.gallery import GalleryImage
from batchgen.ledger.review import ImageFile
from batchgen.money import dollars
from batchgen.output.presigned_links import Links
from batchgen.review.comparison import Comparison
from batchgen.review.image_files import ImageFiles, NoFileError, check_shown
from batchgen.review.written_files import check_own, replace_file
from batchgen.text import counted, duration
from batchgen.urls import is_bucket

MOST_SINGLE_BYTES: Final = 25_000_000
SHOWABLE: Final = ("key", "prompt", "cost", "model", "seconds")
_HERE: Final = Path(__file__).parent
_THUMBS, _ORIGINALS = "thumbs", "images"
_NAME_CHARS: Final = 24
_FULL: Final = "full"
_FULL_SIDE: Final = 640
"""Thumbnails of a gallery that has the originals too."""
_PART_NAME: Final = re.compile(r"/\.([^/]+?)\.[0-9]+(?:\.[0-9a-f]+)?\.part$")
_OWN_NAME: Final = re.compile(r"thumbs/[0-9a-f]{24}-[0-9]+\.webp|images/[0-9a-f]{24}[cm][./].*")
_MOST_BYTES_A_PIXEL: Final = 0.12
"""Of a WebP thumbnail of a photo, for the estimate before anything is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryOptions:
    """How a gallery looks, and what it says."""

    title: str
    size: str = "320"
    show: Sequence[str] = ()
    """Of `SHOWABLE`."""
    columns: Sequence[str] = ()
    single: bool = False
    before: bool = False
    compare: Sequence[str] = ()
    """Axes of the matrix, whose values are the columns of a grid."""
    """Whether each image comes with the one that it replaced."""
    pick: bool = False
    keep_metadata: bool = False
    presigned: timedelta | None = None
    """How long links to the full images in buckets work; None for no links."""

    @property
    def side(self) -> int:
        """The side of the thumbnails in pixels."""
        return _FULL_SIDE if self.size == _FULL else int(self.size)

    @property
    def has_originals(self) -> bool:
        """Whether the images themselves are in it."""
        return self.size == _FULL


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One image as the template shows it."""

    number: int
    id: str
    """Opaque: part of the sha256."""
    thumb: str
    full: str
    before: str
    alt: str
    caption: str
    key: str
    facts: Mapping[str, str]
    width: int
    height: int
    trouble: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GridEntry:
    """A cell of a comparison as the template shows it."""

    entries: Sequence[Entry]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GridLine:
    """A row of a comparison as the template shows it."""

    caption: str
    prompt: str
    cells: Sequence[GridEntry]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where an image is in a comparison."""

    row: str
    column: str
    has_prompt: bool
    """Whether the row shows the prompt already."""


@dataclass(slots=True)
class Written:
    """What a gallery consists of."""

    images: int = 0
    troubles: list[str] = field(default_factory=list)


class GalleryWriter:
    """Writes the files of one gallery below ``target``, which is a directory or one HTML file."""

    def __init__(
        self,
        target: Path,
        options: GalleryOptions,
        files: ImageFiles,
        links: Links | None = None,
    ) -> None:
        """``links`` makes those that `GalleryOptions.presigned` wants."""
        self._links = links
        self._target = target
        self._files = files
        self._options = options
        self._used = set[str]()
        self._number = 0
        self.written = Written()

    def write(
        self,
        images: Sequence[GalleryImage],
        values: Mapping[str, Mapping[str, str]],
        grid: Comparison | None = None,
    ) -> Written:
        """Write all of it. ``values`` has the columns of each source line.

        With ``grid``, the images are those of the comparison, and shown in its rows and columns.

        Raises SettingsError for a single file that would be too large and for a page of somebody
        else at its place, and OSError.
        """
        options = self._options
        page = self._target if options.single else self._target / "index.html"
        check_own(page, kind="gallery")
        if options.single:
            self._check_size(images)
        self._files.prepare(_rows(images), options.side)
        template = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        ).get_template("gallery.html")
        lines = [] if grid is None else self._lines(grid, values)
        alone = images if grid is None else grid.rest
        text = template.render(
            title=options.title,
            count=counted(len(images), "image"),
            until=self._links.end if self._links is not None else "",
            entries=[self._entry(one, values) for one in alone],
            grid=grid,
            lines=lines,
            show=options.show,
            pick=options.pick,
            style=(_HERE / "static" / "gallery.css").read_text(encoding="utf-8"),
            script=(_HERE / "static" / "gallery.js").read_text(encoding="utf-8"),
            storage=_storage_name(images),
        )
        self.written.images = len(images)
        if options.single and len(text) > MOST_SINGLE_BYTES:
            raise SettingsError(_too_large(len(text), len(images)))
        replace_file(page, text.encode())
        if not options.single:
            self._remove_unused()
        return self.written

    def _check_size(self, images: Sequence[GalleryImage]) -> None:
        """Refuse what will be too large before anything is made. Raises SettingsError."""
        pixels = sum(_pixels(one, self._options.side) for one in images)
        expected = int(pixels * _MOST_BYTES_A_PIXEL * 4 / 3)
        if expected > MOST_SINGLE_BYTES:
            raise SettingsError(_too_large(expected, len(images)))

    def _lines(
        self, grid: Comparison, values: Mapping[str, Mapping[str, str]]
    ) -> Sequence[GridLine]:
        """Return the rows of a comparison. A prompt that a whole row shares is shown once."""
        found = []
        for number, row in enumerate(grid.rows, 1):
            own = values.get(row.source, {})
            given = [own[name] for name in self._options.columns if own.get(name)]
            prompt = row.prompt if "prompt" in self._options.show else ""
            caption = " · ".join([*given, *([row.others] if row.others else [])])
            caption = caption or ("" if prompt else str(number))
            cells = []
            for cell, column in zip(row.cells, grid.columns, strict=True):
                place = _Place(
                    row=caption or prompt, column=", ".join(column), has_prompt=bool(prompt)
                )
                entries = [self._entry(image, values, place) for image in cell.images]
                cells.append(GridEntry(entries=entries, note=cell.note))
            found.append(GridLine(caption=caption, prompt=prompt, cells=cells))
        return found

    def _entry(
        self,
        image: GalleryImage,
        values: Mapping[str, Mapping[str, str]],
        place: _Place | None = None,
    ) -> Entry:
        self._number += 1
        options, own = self._options, values.get(image.source, {})
        given = [own[name] for name in options.columns if own.get(name)]
        key = image.key if "key" in options.show else ""
        caption = " · ".join([*([key] if key else []), *given]) or str(self._number)
        alt, facts = given[0] if given else caption, self._facts(image)
        if place is not None:
            caption, alt = key, f"{place.row}, {place.column}"
            if place.has_prompt:
                facts.pop("prompt", None)
            facts = {"values": place.column, **facts}
        thumb = full = before = trouble = ""
        try:
            thumb = self._thumbnail(image.file)
            before = self._thumbnail(image.before) if image.before is not None else ""
            full = self._original(image, key) if options.has_originals else self._link(image.file)
        except (NoFileError, BadImage, OSError, ValueError) as exc:
            trouble = "not available"
            self.written.troubles.append(f"{image.key}: {exc}")
        return Entry(
            number=self._number,
            id=image.file.sha256[:_NAME_CHARS],
            thumb=thumb,
            full=full,
            before=before,
            alt=alt,
            caption=caption,
            key=key,
            facts=facts,
            width=image.width,
            height=image.height,
            trouble=trouble,
        )

    def _facts(self, image: GalleryImage) -> dict[str, str]:
        known = {
            "prompt": image.prompt,
            "model": image.model,
            "cost": dollars(image.cost),
            "seconds": duration(image.seconds),
        }
        return {name: text for name, text in known.items() if name in self._options.show}

    def _thumbnail(self, row: ImageFile) -> str:
        """Return the URL of a thumbnail; as a data URL for a single file."""
        check_shown(row)
        content = self._files.thumbnail(row, self._options.side)
        if self._options.single:
            return f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        name = f"{_THUMBS}/{row.sha256[:_NAME_CHARS]}-{self._options.side}.webp"
        path = self._use(name)
        if not path.is_file():
            replace_file(path, content)
        return name

    def _link(self, row: ImageFile) -> str:
        """Return a link to an image in a bucket; empty without one. Raises SettingsError."""
        if self._links is None or not is_bucket(row.root) or row.state != "saved":
            return ""
        return self._links.url(row.root, row.path)

    def _original(self, image: GalleryImage, key: str) -> str:
        """Copy the image itself, without metadata unless that is wanted, and return its URL.

        A GIF or AVIF without metadata is a WebP.
        """
        row = image.file
        kind = ImageFormat(row.format)
        mark = "m" if self._options.keep_metadata else "c"
        stem = f"{row.sha256[:_NAME_CHARS]}{mark}"
        if key:
            stem += f"/{Path(row.path).stem}"
        is_kept = self._options.keep_metadata or kind is ImageFormat.MP4
        is_converted = not is_kept and kind not in USUAL_FORMATS
        extension = (ImageFormat.WEBP if is_converted else kind).extension
        path = self._use(name := f"{_ORIGINALS}/{stem}.{extension}")
        if path.is_file():
            self._files.check(row)
        else:
            data = self._files.find(row).read_bytes()
            if is_converted:
                data = plain_copy(data)
            elif not is_kept:
                data = without_metadata(data, kind)
            replace_file(path, data)
        return quote(name)

    def _use(self, name: str) -> Path:
        self._used.add(name)
        return self._target / name

    def _remove_unused(self) -> None:
        """Remove images that the new page does not show, and what a killed run left half written.

        Files whose names are not ours stay.
        """
        for directory in (_THUMBS, _ORIGINALS):
            for path in _files_below(self._target / directory):
                name = path.relative_to(self._target).as_posix()
                is_ours = _OWN_NAME.fullmatch(_PART_NAME.sub(r"/\1", name)) is not None
                if name not in self._used and is_ours:
                    path.unlink()


def _files_below(directory: Path) -> Iterator[Path]:
    if directory.is_dir():
        yield from sorted(path for path in directory.rglob("*") if path.is_file())


def _rows(images: Sequence[GalleryImage]) -> Iterator[ImageFile]:
    for one in images:
        yield one.file
        if one.before is not None:
            yield one.before


def _pixels(image: GalleryImage, side: int) -> float:
    longest = max(image.width, image.height, 1)
    scale = min(1.0, side / longest)
    pairs = 1 if image.before is None else 2
    return image.width * image.height * scale * scale * pairs


def _too_large(size: int, images: int) -> str:
    return (
        f"--single: {counted(images, 'image')} make a file of about {size / 1e6:,.0f} MB; expected"
        f" at most {MOST_SINGLE_BYTES / 1e6:,.0f} MB. Leave --single out for a directory, or choose"
        " fewer images with --only, --run or --decision"
    )


def _storage_name(images: Sequence[GalleryImage]) -> str:
    """Return a name for the picks in a browser, which has one store for all files."""
    digest = hashlib.sha256("".join(one.file.sha256 for one in images).encode())
    return f"picks-{digest.hexdigest()[:16]}"
