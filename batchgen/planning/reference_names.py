"""Resolve the file names of reference images, and keep those of table cells in their place.

A manifest is trusted, a table is not: a supplier's cell must not upload a file of its choice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batchgen.manifest.loader import DocPath
from batchgen.planning.job_template import JobTemplate

_TEMPLATE_MARK: Final = re.compile(r"\{\{|\{%|\{#")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDirectories:
    """Where relative names start, and where else a table may name files."""

    base: Path
    """The directory of the manifest."""
    images_root: Path | None = None
    """Declared by the manifest."""


class ImageNames:
    """Resolver of the names that one template renders."""

    def __init__(self, template: str, directories: ImageDirectories, *, is_trusted: bool) -> None:
        self._base = directories.base
        mark = _TEMPLATE_MARK.search(template)
        self._is_trusted = is_trusted or mark is None
        before = template if mark is None else template[: mark.start()]
        self._home, self._written_home = "", ""
        if before.startswith("~") and "/" in before:
            self._written_home = before.split("/", 1)[0]
            self._home = str(Path(self._written_home).expanduser())
        prefix = before[: before.rfind("/") + 1]
        declared = [directories.base, directories.images_root]
        if mark is not None and prefix.strip("/"):
            # The manifest itself names this directory.
            declared.append(self._absolute(prefix))
        self._roots = [_normal(root) for root in declared if root is not None]

    def resolve(self, name: str) -> Path:
        """Return the path of a file. Raises ValueError if a table may not name it."""
        path = self._absolute(name)
        if self._is_trusted:
            return path
        # Opened as checked: the system would follow a symbolic link before it goes up by "..".
        path = _normal(path)
        if any(path.is_relative_to(root) for root in self._roots):
            return path
        raise ValueError(
            f"reference image {name[:200]!r} is outside of {self._roots[0]}; a table may only name"
            " files below the manifest's directory, or below images_root: DIRECTORY"
        )

    def _absolute(self, name: str) -> Path:
        if self._home and name.startswith(self._written_home):
            name = self._home + name[len(self._written_home) :]
        return self._base / name


def image_names(
    template: JobTemplate, directories: ImageDirectories, *, is_trusted: bool
) -> Mapping[DocPath, ImageNames]:
    """Return the names of each image and of the mask of a template, by place."""
    parts = [*template.images, *([template.mask] if template.mask else [])]
    return {
        part.place: ImageNames(part.template.text, directories, is_trusted=is_trusted)
        for part in parts
    }


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))
