"""A bucket of S3, Google Cloud Storage or Azure as a store (extra ``cloud``: obstore)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from batchgen.errors import SettingsError
from batchgen.storage.store import ObjectInfo, StaleObjectError, Store, StoreError
from batchgen.system.atomic_files import sha256_of

MULTIPART_BYTES: Final = 16 << 20
"""Larger objects are uploaded in pieces, which no service offers with a condition."""
_PIECE_BYTES: Final = 8 << 20
_PIECES_AT_ONCE: Final = 4
_DIGEST: Final = "sha256"
"""User metadata of our objects. A program that writes other content does not keep it."""
_CLIENT: Final = {"timeout": timedelta(minutes=5), "connect_timeout": timedelta(seconds=10)}
_RETRY: Final = {"max_retries": 8, "retry_timeout": timedelta(seconds=30)}
"""Until a service has responded once. Where nothing listens, this takes 1 to 4 seconds."""
_PATIENT: Final = {
    "max_retries": 1000,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
"""Afterwards: a service that restarts costs a run nothing.

A lease lasts longer without a renewal, so that a run that stops names the bucket as the reason.
"""
_TYPES: Final = {
    "jpg": "image/jpeg",
    "json": "application/json",
    "mp4": "video/mp4",
    "parquet": "application/vnd.apache.parquet",
    "png": "image/png",
    "tar": "application/x-tar",
    "txt": "text/plain; charset=utf-8",
    "webp": "image/webp",
}


class ObjectStore:
    """The objects below a URL such as ``s3://bucket/prefix``; see `Store`.

    A put with a condition is atomic. Above `MULTIPART_BYTES`, a create-only put first claims the
    name with an empty object and then replaces that; a put by tag compares, then replaces.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        """Open a store; nothing is sent. ``options`` are those of obstore.

        Raises SettingsError if obstore is not installed or refuses the options.
        """
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise SettingsError(
                f"{url}: needs obstore, which is not installed; expected batchgen[cloud], such as"
                " `pip install 'PATH_OR_WHEEL[cloud]'`"
            ) from None
        self.url = url.rstrip("/")
        self._api: Any = obstore
        client: dict[str, Any] = dict(_CLIENT)
        if any(value.startswith("http://") for value in options.values()):
            client["allow_http"] = True
        place, config = _as_url(self.url), dict(options)
        try:
            self._store: Any
            self._store, self._patient = (
                from_url(place, config=config, client_options=client, retry_config=retry)
                for retry in (_RETRY, _PATIENT)
            )
        except (BaseError, ValueError) as exc:
            raise SettingsError(f"{url}: cannot be used: {_first_line(exc)}") from None

    def info(self, name: str) -> ObjectInfo | None:
        try:
            with self._errors(name, "looked up"):
                return _info(name, self._api.head(self._store, name))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        with self._errors(name, "read"):
            return bytes(self._api.get(self._store, name).bytes())

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._errors(name, "read"):
            for chunk in self._api.get(self._store, name):
                yield bytes(chunk)

    def digest(self, name: str) -> str | None:
        """Return the SHA-256 that was recorded with an object, else that of its content."""
        try:
            with self._errors(name, "looked up"):
                found = self._api.get(self._store, name, options={"head": True})
                recorded = found.attributes.get(_DIGEST)
        except FileNotFoundError:
            return None
        return str(recorded) if recorded else hashlib.sha256(self.read(name)).hexdigest()

    def put(
        self, name: str, data: bytes, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        digest = hashlib.sha256(data).hexdigest()
        return self._put(name, data, len(data), digest, create=create, if_tag=if_tag)

    def put_file(
        self, name: str, source: Path, *, create: bool = False, if_tag: str | None = None
    ) -> ObjectInfo:
        digest, size = sha256_of(source), source.stat().st_size
        return self._put(name, source, size, digest, create=create, if_tag=if_tag)

    def _put(
        self, name: str, data: bytes | Path, size: int, digest: str, **condition: Any
    ) -> ObjectInfo:
        mode: Any = "overwrite"
        if condition["create"]:
            mode = "create"
        elif condition["if_tag"] is not None:
            mode = {"e_tag": condition["if_tag"]}
        if size > MULTIPART_BYTES and mode != "overwrite":
            self._claim(name, mode)
            mode = "overwrite"
        with self._errors(name, "written", is_put=True):
            done = self._api.put(
                self._store,
                name,
                data,
                mode=mode,
                attributes=_attributes(name, digest),
                use_multipart=size > MULTIPART_BYTES,
                chunk_size=_PIECE_BYTES,
                max_concurrency=_PIECES_AT_ONCE,
            )
        return ObjectInfo(name=name, bytes=size, e_tag=str(done["e_tag"] or ""))

    def _claim(self, name: str, mode: Any) -> None:
        """Meet the condition of a large put before it begins. Raises what the put would."""
        if mode == "create":
            with self._errors(name, "written", is_put=True):
                empty = hashlib.sha256(b"").hexdigest()
                self._api.put(
                    self._store, name, b"", mode=mode, attributes=_attributes(name, empty)
                )
            return
        found = self.info(name)
        if found is None or found.e_tag != mode["e_tag"]:
            raise StaleObjectError(name)

    def copy(self, name: str, target: str) -> None:
        with self._errors(name, f"copied to {target}"):
            self._api.copy(self._store, name, target)

    def delete(self, name: str) -> None:
        try:
            with self._errors(name, "deleted"):
                self._api.delete(self._store, name)
        except FileNotFoundError:
            pass

    def delete_all(self, names: Sequence[str]) -> None:
        with suppress(FileNotFoundError), self._errors(names[0], "deleted"):
            self._api.delete(self._store, list(names))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # obstore lists whole path segments only; the rest of the prefix is compared here.
        directory, _, _ = prefix.rpartition("/")
        with self._errors(prefix, "listed"):
            for page in self._api.list(self._store, prefix=directory or None):
                for one in page:
                    # Consoles create an object for the prefix itself, which has no name here.
                    if one["path"] and one["path"].startswith(prefix):
                        yield _info(one["path"], one)

    def presigned(self, name: str, lifetime: timedelta) -> str:
        """Return a URL from which anyone can read an object until its lifetime ends."""
        with self._errors(name, "signed"):
            return str(self._api.sign(self._store, "GET", name, lifetime))

    @contextmanager
    def _errors(self, name: str, done: str, *, is_put: bool = False) -> Iterator[None]:
        """Raise errors of obstore as OSErrors that name the object."""
        from obstore import exceptions

        place = f"{self.url}/{name}"
        try:
            yield
        except FileNotFoundError as exc:  # what obstore raises for a missing object or bucket
            kind = StoreError if is_put else FileNotFoundError
            raise kind(2, f"not found: {_first_line(exc)}", place) from None
        except exceptions.AlreadyExistsError:
            raise FileExistsError(17, "the object exists", place) from None
        except exceptions.PreconditionError:
            raise StaleObjectError(name) from None
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as exc:
            raise StoreError(13, f"access refused: {_first_line(exc)}", place) from None
        except (ValueError, TypeError) as exc:  # an empty part, ``..`` or a control character
            raise StoreError(22, f"not a usable name: {_first_line(exc)}", place) from None
        except exceptions.BaseError as exc:
            raise StoreError(5, f"not {done}: {_first_line(exc)}", place) from None
        else:
            self._store = self._patient


def copy_to_free_name(store: Store, source: str, target: str) -> bool:
    """Copy an object to an unused name; return False if an object is there.

    No service copies with a condition and keeps the attributes, so that an empty object claims the
    name first. One that a kill left is known by its recorded placement.
    """
    try:
        store.put(target, b"", create=True)
    except FileExistsError:
        found = store.info(target)
        # The response to the put may have been lost. An empty object has nothing to be kept.
        if found is not None and found.bytes:
            return False
    store.copy(source, target)
    return True


def _as_url(root: str) -> str:
    """Return the URL that obstore decodes to the prefix as it is written.

    Names in the ledger, in exports and in ``aws s3`` are not encoded, so neither is a prefix:
    otherwise ``s3://b/x#1`` and ``s3://b/x#2`` were one place, and ``50%20off`` another one than
    it says.
    """
    scheme, _, rest = root.partition("://")
    bucket, slash, prefix = rest.partition("/")
    return f"{scheme}://{bucket}{slash}{quote(prefix)}"


def _attributes(name: str, digest: str) -> dict[str, str]:
    kind = _TYPES.get(name.rpartition(".")[2], "application/octet-stream")
    return {"Content-Type": kind, _DIGEST: digest}


def _info(name: str, found: Any) -> ObjectInfo:
    return ObjectInfo(name=name, bytes=int(found["size"]), e_tag=str(found["e_tag"] or ""))


def _first_line(exc: BaseException) -> str:
    """Return what an error of obstore says, without its debug output."""
    return " ".join(str(exc).partition("\n")[0].split())[:300]
