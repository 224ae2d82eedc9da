"""Rules for reference images and masks, and the check of images against them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchgen.errors import Objection
from batchgen.images.formats import USUAL_FORMATS, ImageFormat
from batchgen.planning.reference_images import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRules:
    """The limits for a model's reference images and mask."""

    source: str
    formats: tuple[ImageFormat, ...] = USUAL_FORMATS
    max_mb: int
    """Each file must be smaller than this many millions of bytes."""
    mask_max_mb: int

    def objections(
        self, images: Sequence[Reference], mask: Reference | None
    ) -> Iterator[Objection]:
        """Yield the violations by images with known content."""
        for number, image in enumerate(images):
            yield from self._of_file(image, ("images", number), self.formats, self.max_mb)
        if mask is not None:
            yield from self._of_file(mask, ("mask",), (ImageFormat.PNG,), self.mask_max_mb)
            yield from self._of_mask(mask, images[0])

    def _of_file(
        self,
        file: Reference,
        place: tuple[str | int, ...],
        formats: tuple[ImageFormat, ...],
        max_mb: int,
    ) -> Iterator[Objection]:
        image = file.image
        if image is None:
            return
        what = "a mask" if place == ("mask",) else "a reference image"
        if image.format not in formats:
            yield self._objection(
                place,
                f"{file.name} is a {image.format.upper()} image, but {what} must be"
                f" {' or '.join(kind.upper() for kind in formats)}",
                f"save it as {formats[0].upper()}",
            )
        if image.size_bytes >= max_mb * 1_000_000:
            yield self._objection(
                place,
                f"{file.name} has {image.size_bytes:,} bytes, but {what} must be under {max_mb} MB",
                "make it smaller",
            )

    def _of_mask(self, mask: Reference, image: Reference) -> Iterator[Objection]:
        if mask.image is None:
            return
        if mask.image.format is ImageFormat.PNG and not mask.image.has_alpha:
            yield self._objection(
                ("mask",),
                f"{mask.name} has no alpha channel, but the transparent parts of a mask mark what"
                " may change",
                "save it as PNG with transparency",
            )
        if image.image is None:
            return
        size, wanted = _size_of(mask), _size_of(image)
        if size != wanted:
            yield self._objection(
                # The user cannot change an image at a URL, so the error points to its entry.
                ("images", 0) if image.is_remote else ("mask",),
                f"{mask.name} is {size}, but a mask must have the size of the first image,"
                f" {image.name}: {wanted}",
                f"scale the mask to {wanted}",
            )

    def _objection(self, place: tuple[str | int, ...], what: str, remedy: str) -> Objection:
        return Objection(place=place, message=f"{what} ({self.source}); {remedy}")


def _size_of(reference: Reference) -> str:
    image = reference.image
    return f"{image.width}x{image.height}" if image else ""
