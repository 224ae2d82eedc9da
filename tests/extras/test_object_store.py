"""The store of a bucket against a real S3 server, an old one and a broken one."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from batchgen.errors import SettingsError
from batchgen.storage.object_store import MULTIPART_BYTES, ObjectStore
from batchgen.storage.probe import probe
from batchgen.storage.store import StaleObjectError, StoreError
from tests.support import wire
from tests.support.extras import require
from tests.support.old_store import Behavior, s3_proxy
from tests.support.rig import TIMEOUT_S
from tests.support.s3 import S3Server

require("obstore", "moto")


@pytest.fixture
def store(s3: S3Server) -> ObjectStore:
    return ObjectStore(f"s3://{s3.new_bucket()}/pre/fix", s3.options)


@pytest.fixture
def proxied(s3: S3Server, behavior: Behavior) -> Iterator[ObjectStore]:
    """A store reached through a proxy with the behavior of the test."""
    with s3_proxy(s3.endpoint, behavior) as endpoint:
        options = {**s3.options, "aws_endpoint_url": endpoint}
        yield ObjectStore(f"s3://{s3.new_bucket()}/x", options)


def test_an_object_is_written_read_and_deleted(store: ObjectStore) -> None:
    put = store.put("é/mug 1%.png", b"one")
    assert store.info("é/mug 1%.png") == put
    assert store.read("é/mug 1%.png") == b"".join(store.chunks("é/mug 1%.png")) == b"one"
    assert [one.name for one in store.list("é/mu")] == ["é/mug 1%.png"]
    assert list(store.list("é/x")) == []
    store.delete("é/mug 1%.png")
    store.delete("é/mug 1%.png")
    assert store.info("é/mug 1%.png") is None
    with pytest.raises(FileNotFoundError, match="not found"):
        store.read("é/mug 1%.png")


def test_one_of_many_creates_an_object(store: ObjectStore) -> None:
    def create(number: int) -> bool:
        try:
            store.put("mug.png", str(number).encode(), create=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        created = list(threads.map(create, range(16)))
    assert created.count(True) == 1
    assert store.read("mug.png") == str(created.index(True)).encode()


def test_one_of_many_replaces_an_object(store: ObjectStore) -> None:
    before = store.put("mug.png", b"before")

    def swap(number: int) -> bool:
        try:
            store.put("mug.png", str(number).encode(), if_tag=before.e_tag)
        except StaleObjectError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        swapped = list(threads.map(swap, range(16)))
    assert swapped.count(True) == 1
    assert store.read("mug.png") == str(swapped.index(True)).encode()


def test_the_digest_is_kept_with_the_object(store: ObjectStore) -> None:
    store.put("mug.png", b"one")
    store.copy("mug.png", ".previous/mug.png~1")
    for name in ("mug.png", ".previous/mug.png~1"):
        assert store.digest(name) == hashlib.sha256(b"one").hexdigest()
    assert store.digest("other.png") is None


def test_another_programs_object_is_hashed(store: ObjectStore) -> None:
    import obstore

    store.put("mug.png", b"one")
    obstore.put(store._store, "mug.png", b"edited")
    assert store.digest("mug.png") == hashlib.sha256(b"edited").hexdigest()


def test_a_large_object_is_uploaded_in_pieces(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(MULTIPART_BYTES) + b"end"
    source = tmp_path / "video.mp4"
    source.write_bytes(data)
    put = store.put_file("video.mp4", source, create=True)
    assert put.e_tag.strip('"').endswith("-3"), "the tag of three pieces"
    assert store.digest("video.mp4") == hashlib.sha256(data).hexdigest()
    with pytest.raises(FileExistsError):
        store.put_file("video.mp4", source, create=True)
    with pytest.raises(StaleObjectError):
        store.put_file("video.mp4", source, if_tag='"other"')


def test_a_presigned_url_is_readable_and_typed(store: ObjectStore) -> None:
    store.put("mug.webp", b"one")
    url = store.presigned("mug.webp", timedelta(minutes=5))
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        assert response.read() == b"one"
        assert response.headers["Content-Type"] == "image/webp"


def test_a_store_with_conditions_is_safe(store: ObjectStore) -> None:
    assert probe(store).is_safe
    assert list(store.list()) == []


def test_an_old_store_is_recognized(proxied: ObjectStore, behavior: Behavior) -> None:
    behavior.drop_conditions = True
    found = probe(proxied)
    assert (found.create_only, found.compare_and_swap) == (False, False)
    assert list(proxied.list()) == []


def test_a_put_whose_response_is_lost_says_exists(proxied: ObjectStore, behavior: Behavior) -> None:
    behavior.lose_responses = 1
    with pytest.raises(FileExistsError):
        proxied.put("mug.png", b"one", create=True)
    assert proxied.digest("mug.png") == hashlib.sha256(b"one").hexdigest()


def test_a_refused_put_names_the_object(proxied: ObjectStore, behavior: Behavior) -> None:
    behavior.refuse_puts = True
    with pytest.raises(StoreError, match="access refused"):
        proxied.put("mug.png", b"one")
    with pytest.raises(SettingsError, match="not usable: access refused"):
        probe(proxied)


def test_a_missing_bucket_is_a_setting(s3: S3Server) -> None:
    with pytest.raises(SettingsError, match="not usable: not found"):
        probe(ObjectStore("s3://no-such-bucket/x", s3.options))


def test_an_unreachable_service_is_a_store_error(s3: S3Server) -> None:
    options = {**s3.options, "aws_endpoint_url": f"http://127.0.0.1:{wire.free_port()}"}
    with pytest.raises(StoreError, match="not read"):
        ObjectStore("s3://bucket/x", options).read("mug.png")


PREFIXES = ["o ut", "ü", "a+b", "50%", "a%20b", "a%2Fb", "h#1", "h#2", "q;z&x=1", "{x}"]


def test_prefixes_are_names_as_they_are_written(s3: S3Server) -> None:
    bucket = f"s3://{s3.new_bucket()}"
    for prefix in PREFIXES:
        store = ObjectStore(f"{bucket}/{prefix}", s3.options)
        store.put("mug 1%.png", prefix.encode(), create=True)
        assert [one.name for one in store.list()] == ["mug 1%.png"]
        url = store.presigned("mug 1%.png", timedelta(minutes=5))
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            assert response.read() == prefix.encode()
    names = {one.name for one in ObjectStore(bucket, s3.options).list()}
    assert names == {f"{prefix}/mug 1%.png" for prefix in PREFIXES}


@pytest.mark.parametrize("name", ["a//b.png", "a/../b.png", "a/./b.png", "a\tb.png"])
def test_name_that_no_request_can_have_is_a_store_error(name: str, store: ObjectStore) -> None:
    for operation in (store.info, store.read, store.digest, store.delete):
        with pytest.raises(StoreError, match="not a usable name"):
            operation(name)
    with pytest.raises(StoreError, match="not a usable name"):
        store.put(name, b"one")


def test_outage_of_seconds_is_waited_out(proxied: ObjectStore, behavior: Behavior) -> None:
    """A service that restarts during a run stops nothing."""
    proxied.put("before", b"")
    behavior.is_down = True
    end = threading.Timer(6, setattr, (behavior, "is_down", False))
    end.start()
    proxied.put("mug", b"one", create=True)
    assert not behavior.is_down
    assert proxied.read("mug") == b"one"
    end.join()


def test_service_that_never_responded_fails_soon(proxied: ObjectStore, behavior: Behavior) -> None:
    behavior.is_down = True
    with pytest.raises(StoreError, match="after 8 retries"):
        proxied.put("mug", b"one")
