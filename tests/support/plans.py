"""Plans of manifests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from batchgen.errors import Fault, ManifestError, Objection
from batchgen.job import OptionValue, PlannedJob
from batchgen.planning.reference_images import Reference
from batchgen.planning.reference_names import ImageDirectories, ImageNames

Plan: TypeAlias = Callable[..., list[PlannedJob]]
"""Plan a manifest's text, next to files that are given by name."""

STRICT: Final = "rows: {file: t.csv, strict: true}\n"


def faults_of(plan: Plan, text: str, **more: object) -> tuple[Fault, ...]:
    """Return the errors of a manifest that cannot be planned."""
    with pytest.raises(ManifestError) as caught:
        plan(text, **more)
    return caught.value.faults


def trusted_names(base: Path) -> ImageNames:
    """Return the names of a manifest's own images."""
    return ImageNames("", ImageDirectories(base=base), is_trusted=True)


class NoSquares:
    """Rules of a provider that takes no squares of one pixel and no prompt over nine characters."""

    def __init__(self, *, fatal: bool = True) -> None:
        self.fatal = fatal
        self.asked: list[tuple[str, Mapping[str, OptionValue], int]] = []

    def of_request(
        self, model: str, options: Mapping[str, OptionValue], references: int
    ) -> Sequence[Objection]:
        self.asked.append((model, options, references))
        found = []
        if options.get("size") == "1x1":
            found.append(self._objection("options", "size", message="size is odd"))
        if references > 1:
            found.append(self._objection("images", message="too many"))
        return found

    def of_prompt(self, model: str, characters: int) -> Objection | None:
        return self._objection("prompt", message="too long") if characters > 9 else None

    def of_references(
        self, model: str, images: Sequence[Reference], mask: Reference | None
    ) -> Sequence[Objection]:
        found = [
            Objection(place=("images", number), message="nine is odd", fatal=self.fatal)
            for number, image in enumerate(images)
            if image.image is not None and image.image.width == 9
        ]
        return found if mask is None else [*found, self._objection("mask", message="masked")]

    def _objection(self, *place: str, message: str) -> Objection:
        return Objection(place=place, message=message, options=place[1:], fatal=self.fatal)
