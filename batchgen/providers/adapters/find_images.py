"""Find the images of a JSON response, wherever the common gateways put them.

`TABLE` lists the paths with their public sources. A path is tried on the document and then inside
one wrapper, such as ``{"data": {...}}``; the first path with an image is used. Nothing here raises,
for any document.

An error must never look like an image. Accepted are base64 with the signature of an image, a
``data:`` URL of an image, and a URL in a field for URLs. In prose, only Markdown images,
``data:`` URLs and URLs of image files are accepted. If the document reports an error, then only
``data[]`` of the Images API and inline images count: no error message begins like an image. An
element that is a running or failed task has no image but an inline one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import pybase64

from batchgen.providers.adapters.response_parsing import data_of_url, storable
from batchgen.providers.adapters.task_states import lacks_result

MAX_IMAGES: Final = 100


@dataclass(frozen=True, slots=True)
class ImagePath:
    """A place where a provider puts images.

    ``[]`` in ``path`` means each element of a list; a single element may replace the list.
    """

    path: str
    source: str
    is_prose: bool = False
    """Whether texts at this place are written for people and may only name an image."""


IMAGES_API: Final = ImagePath("data[]", "https://platform.openai.com/docs/api-reference/images")
"""Its ``url`` may be relative, and its ``b64_json`` need not look like base64."""

_OPENAI: Final = "https://platform.openai.com/docs/api-reference/"
_STABILITY: Final = "https://platform.stability.ai/docs/api-reference"
_SILICONFLOW: Final = "https://docs.siliconflow.cn/en/api-reference/images/images-generations"
_REPLICATE: Final = "https://replicate.com/docs/topics/predictions/create-a-prediction"
_EVOLINK: Final = "https://docs.evolink.ai/en/api-manual/task-management/get-task-detail"
_MODELSCOPE: Final = "https://skills.sh/hansonyyds/modelscope-image-gen/modelscope-api"
_MINIMAX: Final = "https://platform.minimax.io/docs/api-reference/image-generation-t2i"
_QIANFAN: Final = "https://cloud.baidu.com/doc/qianfan-api/s/rmqgca7yy"
_KIE: Final = "https://docs.kie.ai/flux-kontext-api/get-image-details"
_IMAGEN: Final = "https://googleapis.github.io/js-genai/interfaces/types.GeneratedImage.html"
_VERTEX: Final = "https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/imagen-api"
_GEMINI: Final = "https://ai.google.dev/api/generate-content#v1beta.Content"
_OPENROUTER: Final = "https://openrouter.ai/docs/features/multimodal/image-generation"

TABLE: Final = (
    IMAGES_API,
    # fal, SiliconFlow, Amazon Bedrock, the web API of A1111: elements are objects or texts.
    ImagePath("images[]", _SILICONFLOW),
    ImagePath("image", _STABILITY),
    ImagePath("artifacts[]", _STABILITY),
    # Replicate, and ``result`` of an ``image_generation_call`` in OpenAI's Responses API.
    ImagePath("output[]", _REPLICATE),
    ImagePath("output[].content[]", _OPENAI + "responses/object", is_prose=True),
    ImagePath("outputs[]", "https://wavespeed.ai/docs/get-result"),
    # DashScope inside ``output``, EvoLink at the top.
    ImagePath("results[]", _EVOLINK),
    ImagePath("output_images[]", _MODELSCOPE),
    ImagePath("image_urls[]", _MINIMAX),
    ImagePath("image_base64[]", _MINIMAX),
    # Kling and Baidu Qianfan inside ``data``.
    ImagePath("task_result.images[]", _QIANFAN),
    ImagePath("sample", "https://docs.bfl.ai/quick_start/generating_images"),
    ImagePath("response.resultImageUrl", _KIE),
    ImagePath("predictions[]", _VERTEX),
    ImagePath("generatedImages[]", _IMAGEN),
    ImagePath("candidates[].content.parts[]", _GEMINI),
    ImagePath("choices[].message.images[]", _OPENROUTER),
    # Parts of OpenAI and DashScope, or a text with Markdown.
    ImagePath("choices[].message.content[]", _OPENAI + "chat/object", is_prose=True),
)

_WRAPPERS: Final = ("data", "result", "response", "output", "body", "payload", "task")
_BASE64_FIELDS: Final = (
    "b64_json", "base64", "bytesBase64Encoded", "imageBytes", "image_base64", "result", "b64",
)  # fmt: skip
_URL_FIELDS: Final = ("url", "image_url", "imageUrl", "image", "uri", "src")
_NESTED: Final = ("image_url", "inlineData", "inline_data", "image", "imageUrl")
_PROSE_FIELDS: Final = ("text", "content")
_PLACEHOLDER: Final = re.compile(r"[0-9a-f]{32}:\d{1,9}")
"""Written by the spool in place of a long base64 text, see `batchgen.spool.response_file`."""
_SIGNATURES: Final = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
_BRANDS: Final = (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_SPACE: Final = re.compile(r"\s+")
_HEAD_CHARS: Final = 96
_SIGNATURE_BYTES: Final = 16
_IMAGE_DATA: Final = re.compile(r"data:(?:image/[\w.+-]+|application/octet-stream)?[;,]", re.I)
_WEB: Final = re.compile(r"(?:https?:)?//[^/\s]", re.I)
_ABSOLUTE: Final = re.compile(r"https?://[^/\s]", re.I)
"""Base64 text may begin like a URL without a scheme: ``//8A``."""
_RELATIVE: Final = re.compile(r"[^\s]*[./][^\s]*")
_MAX_PATH_CHARS: Final = 2048
_FILE_PATH: Final = re.compile(
    r"[\w%.~-]*(?:/[\w%.~ -]+)+\.(?:png|jpe?g|webp|gif|avif)(?:\?[^\s\"'<>]*)?", re.I
)
"""A relative URL outside ``url`` of the Images API: the path of an image file, with a slash."""
_MARKDOWN: Final = re.compile(r"!\[[^\]]{0,500}\]\(\s*<?((?:https?://|data:image/)[^)\s>]+)")
_IN_PROSE: Final = re.compile(
    r"data:image/[\w.+-]+;base64,[\w+/=:-]+"
    r"|https?://[^\s\"'<>()\[\]]+?\.(?:png|jpe?g|webp|gif|avif)(?:\?[^\s\"'<>()\[\]]*)?(?![\w/.-])",
    re.I,
)


_API_FIELDS: Final = frozenset(
    ("created", "data", "usage", "background", "output_format", "quality", "size")
)
_ITEM_FIELDS: Final = frozenset(("url", "b64_json", "revised_prompt"))
"""https://platform.openai.com/docs/api-reference/images/object"""

_Image: TypeAlias = tuple[str | None, str | None]
"""Base64 text and URL of an image; one of the two is None."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image: a URL, or base64 text in the response. Exactly one of the two is set."""

    index: int
    """Position in the list where it was found, or among all images of a text."""
    url: str | None = None
    base64: str | None = None


def find_images(document: object, *, is_error: bool = False) -> list[Found]:
    """Return the images of a document, at most `MAX_IMAGES`.

    ``is_error`` states that the document reports an error.
    """
    if isinstance(document, (list, str)):
        document = {"data": document}
    if not isinstance(document, dict):
        return []
    is_error = is_error or lacks_result(document)
    inner = [part for name in _WRAPPERS if isinstance(part := document.get(name), dict)]
    for holder in (document, *inner):
        for row in TABLE:
            if found := _at(holder, row, is_error=is_error or lacks_result(holder)):
                return found[:MAX_IMAGES]
    return []


def plain_url(document: object) -> str | None:
    """Return the URL in a response with one image by URL and only fields of the Images API.

    None for any other document. `find_images` finds the same in it, for five times the CPU: nearly
    all responses of a large run are like this.
    """
    if not isinstance(document, dict) or not document.keys() <= _API_FIELDS:
        return None
    data = document.get("data")
    item = data[0] if isinstance(data, list) and len(data) == 1 else None
    if not isinstance(item, dict) or not item.keys() <= _ITEM_FIELDS or item.get("b64_json"):
        return None
    url = item.get("url")
    return storable(url) if isinstance(url, str) and _ABSOLUTE.match(url) else None


def is_image_file(body: bytes) -> bool:
    """Return whether a body, or its first 16 bytes, has the signature of an image file."""
    is_webp = body[:4] == b"RIFF" and body[8:12] == b"WEBP"
    is_heif = body[4:8] == b"ftyp" and body[8:12] in _BRANDS
    return is_webp or is_heif or body.startswith(_SIGNATURES)


def is_image_text(body: bytes) -> bool:
    """Return whether a body that is not JSON is nothing but an image as text, or shows one.

    Base64, a ``data:`` URL, a URL, or Markdown. A sentence with a URL may be an error.
    """
    try:
        text = body.decode().strip()
    except UnicodeDecodeError:
        return False
    return _MARKDOWN.search(text) is not None or image_in_text(text) is not None


def _at(holder: Mapping[str, Any], row: ImagePath, *, is_error: bool) -> list[Found]:
    """Return the images at one path. Those of the Images API have the index of their item."""
    items = list(_walk(holder, row.path.split(".")))
    if row is IMAGES_API:
        found = [_of_images_api(index, item, is_error) for index, item in enumerate(items)]
        return [one for one in found if one is not None]
    images = [
        (base64, url)
        for item in items
        for base64, url in _of_item(item, is_prose=row.is_prose)
        if base64 is not None or not (is_error or _is_unfinished(item))
    ]
    return [Found(index, url, base64) for index, (base64, url) in enumerate(images)]


def _walk(holder: object, steps: Sequence[str]) -> Iterator[object]:
    """Yield the values at a path. Elements of other types are yielded too: they have an index."""
    if not steps:
        yield holder
        return
    name = steps[0].removesuffix("[]")
    value = holder.get(name) if isinstance(holder, dict) else None
    if value is None:
        return
    is_list = steps[0].endswith("[]") and isinstance(value, list)
    for item in value[:MAX_IMAGES] if is_list else [value]:
        yield from _walk(item, steps[1:])


def _of_images_api(index: int, item: object, is_error: bool) -> Found | None:
    """Read ``b64_json`` and ``url`` as OpenAI-compatible servers write them, or other fields."""
    base64, url = (
        (item.get("b64_json"), item.get("url")) if isinstance(item, dict) else (None, None)
    )
    base64 = base64.strip() if isinstance(base64, str) else ""
    if base64 and not _ABSOLUTE.match(base64):
        data = data_of_url(base64)
        return Found(index, base64=base64 if data is None else data)
    for text in (_tidy(url) if isinstance(url, str) else "", base64):
        data = data_of_url(text)
        if data is not None or _is_base64_image(text):
            return Found(index, base64=text if data is None else data)
        if not _is_unfinished(item) and (_WEB.match(text) or _RELATIVE.fullmatch(text)):
            return Found(index, url=storable(text))
    for data, link in _of_item(item):
        if data is not None or not (is_error or _is_unfinished(item)):
            return Found(index, link, data)
    return None


def _of_item(item: object, *, is_prose: bool = False, depth: int = 2) -> Iterator[_Image]:
    """Yield the images of an element."""
    if isinstance(item, str):
        whole = None if is_prose else image_in_text(item)
        yield from [whole] if whole else _of_prose(item)
    if not isinstance(item, dict) or item.get("thought") or _is_input(item):
        return
    for name in (*_BASE64_FIELDS, *_URL_FIELDS):
        if isinstance(text := item.get(name), str) and (read := image_in_text(text)):
            yield read
            return
    for name in _NESTED:
        if isinstance(part := item.get(name), dict) and depth:
            data = part.get("data")
            inline = image_in_text(data) if isinstance(data, str) else None
            if found := [inline] if inline else list(_of_item(part, depth=depth - 1)):
                yield from found
                return
    for name in _PROSE_FIELDS:
        if isinstance(text := item.get(name), str):
            yield from _of_prose(text)


def _is_unfinished(item: object) -> bool:
    """Return whether an element is a task that is running or has failed, or an error."""
    return isinstance(item, dict) and lacks_result(item)


def _is_input(item: Mapping[str, Any]) -> bool:
    """Return whether an element repeats an image of the request."""
    kind = item.get("type")
    return isinstance(kind, str) and kind.startswith("input")


def _tidy(url: str) -> str:
    """Return a URL without what some gateways write around it: quotes, Markdown, JSON escapes."""
    text = url.strip()
    shown = _MARKDOWN.match(text)
    return shown[1] if shown else text.strip("\"'`<>").replace("\\/", "/")


def image_in_text(text: str) -> _Image | None:
    """Return the image that a text is; None if it is not one."""
    text = _tidy(text)
    if _IMAGE_DATA.match(text):
        data = data_of_url(text) or ""
        return (data, None) if _is_base64_image(data) else None
    if _is_base64_image(text):
        return text, None
    if _WEB.match(text) and not _SPACE.search(text.partition("?")[0].partition("//")[2][:253]):
        return None, storable(text)
    if len(text) <= _MAX_PATH_CHARS and _FILE_PATH.fullmatch(text):
        return None, storable(text)
    return None


def _of_prose(text: str) -> Iterator[_Image]:
    """Yield the images that a text shows as Markdown, otherwise those it names."""
    for url in _MARKDOWN.findall(text) or _IN_PROSE.findall(text):
        if read := image_in_text(url):
            yield read


def _is_base64_image(text: str) -> bool:
    """Return whether base64 text begins with the signature of an image, or replaces one."""
    if _PLACEHOLDER.fullmatch(text.strip()):
        return True
    head = text[:_HEAD_CHARS]
    if ":" in head:  # most texts are URLs, and a failed decoder costs 10 us
        return False
    head = _SPACE.sub("", head).translate(_URL_SAFE)[: _SIGNATURE_BYTES // 3 * 4 + 4]
    try:
        return is_image_file(pybase64.b64decode(head[: len(head) // 4 * 4], validate=True))
    except ValueError:
        return False
