"""Write the origin of an image into its file as an XMP packet, without changing a pixel.

Image programs read XMP in PNG, JPEG and WebP. An image that already has XMP keeps it unchanged: it
may name its author. So does a signed one: any change would break its signature.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from html import escape
from typing import Final

from batchgen.images.formats import USUAL_FORMATS, ImageFormat, ImageInfo
from batchgen.images.inspect import inspect

MAX_VALUE_BYTES: Final = 40_000
"""Maximum length of the prompt and of other values; a packet with all of them fits a JPEG
segment.
"""
_MAX_SEGMENT_BYTES: Final = 65_533
_NAMESPACE: Final = "https://batchgen.invalid/xmp/1.0/"
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WEBP_XMP: Final = 0x04
_WEBP_ALPHA: Final = 0x10
_PNG_KEYWORD: Final = b"XML:com.adobe.xmp"
_JPEG_HEADER: Final = b"http://ns.adobe.com/xap/1.0/\0"


class MetadataRefused(Exception):
    """An image cannot take metadata; the message says why."""


def embed(data: bytes, values: Mapping[str, str]) -> bytes:
    """Return the image with the values embedded; ``prompt`` becomes its description too.

    Names are letters and underscores. An image with metadata of ours is returned unchanged. Raises
    MetadataRefused, and BadImage if the bytes are not an image.
    """
    info = inspect(data)
    if has_metadata(data):
        return data
    if refusal := refusal_of(data, info):
        raise MetadataRefused(refusal)
    packet = _packet(values)
    match info.format:
        case ImageFormat.PNG:
            return _into_png(data, packet)
        case ImageFormat.JPEG:
            return _into_jpeg(data, packet)
        case _:
            return _into_webp(data, packet, info.width, info.height, info.has_alpha)


def has_metadata(data: bytes) -> bool:
    """Return whether an image has metadata that `embed` wrote."""
    return _NAMESPACE.encode() in data


def refusal_of(data: bytes, info: ImageInfo) -> str:
    """Return why an image cannot take metadata; empty if it can, or has ours."""
    if has_metadata(data):
        return ""
    if info.is_signed:
        return "it is signed with content credentials (C2PA), which any change would break"
    if info.format not in USUAL_FORMATS:
        return f"{info.format} images take none"
    return "it has XMP of its own" if _has_xmp(data, info.format) else ""


def _has_xmp(data: bytes, kind: ImageFormat) -> bool:
    match kind:
        case ImageFormat.PNG:
            return _PNG_KEYWORD in data
        case ImageFormat.JPEG:
            return _JPEG_HEADER in data
        case _:
            return data[12:16] == b"VP8X" and bool(data[20] & _WEBP_XMP)


def _packet(values: Mapping[str, str]) -> bytes:
    fields = "".join(
        f"<batchgen:{name}>{_text(value)}</batchgen:{name}>" for name, value in values.items()
    )
    prompt = values.get("prompt")
    described = (
        "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>"
        f"{_text(prompt, MAX_VALUE_BYTES // 4)}</rdf:li></rdf:Alt></dc:description>"
        if prompt
        else ""
    )
    return (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<rdf:Description rdf:about='' xmlns:dc='http://purl.org/dc/elements/1.1/'"
        f" xmlns:batchgen='{_NAMESPACE}'>{described}{fields}</rdf:Description>"
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def _text(value: str, most: int = MAX_VALUE_BYTES) -> str:
    """Return text as XML of at most this many bytes, never cut inside a character."""
    size, kept = 0, []
    for char in _NOT_XML.sub("", value):
        written = escape(char, quote=False)
        size += len(written.encode())
        if size > most:
            break
        kept.append(written)
    return "".join(kept)


def _into_png(data: bytes, packet: bytes) -> bytes:
    end_of_header = 8 + 12 + 13  # inspected: the header comes first, and has this length
    body = b"iTXt" + _PNG_KEYWORD + b"\0\0\0\0\0" + packet  # not compressed, no language
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:end_of_header] + chunk + data[end_of_header:]


def _into_jpeg(data: bytes, packet: bytes) -> bytes:
    body = _JPEG_HEADER + packet
    if len(body) > _MAX_SEGMENT_BYTES:
        raise MetadataRefused("it would be too long for a JPEG")
    at = 2
    while data[at : at + 2] in (b"\xff\xe0", b"\xff\xe1"):  # JFIF and Exif must come first
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[at:]


def _into_webp(data: bytes, packet: bytes, width: int, height: int, has_alpha: bool) -> bytes:
    end = 8 + int.from_bytes(data[4:8], "little")
    chunks, trailer = data[12:end], data[end:]
    if chunks[:4] == b"VP8X":
        chunks = chunks[:8] + bytes([chunks[8] | _WEBP_XMP]) + chunks[9:]
    else:
        flags = _WEBP_XMP | (_WEBP_ALPHA if has_alpha else 0)
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks = b"VP8X" + struct.pack("<II", 10, flags) + canvas + chunks
    padding = b"\0" * (len(packet) % 2)
    chunks += b"XMP " + struct.pack("<I", len(packet)) + packet + padding
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks + trailer
