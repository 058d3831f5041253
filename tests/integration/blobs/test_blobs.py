"""Blobs against Azurite."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest

from shared.blobs import Blobs
from shared.domain.errors import ConflictError, InvalidRequestError, NotFoundError, StorageUnavailableError
from tests.support.settings import make_settings

PUT_BLOB = {"x-ms-blob-type": "BlockBlob"}


@pytest.fixture
def name() -> str:
    return f"exports/{uuid4()}.csv"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


async def test_what_was_uploaded_is_read_back(blobs: Blobs, name: str) -> None:
    content = bytes(range(256)) * 80_000  # several requests long

    info = await blobs.upload("files", name, iter([content[:7], content[7:]]), metadata={"import_source": "quarry"})

    assert b"".join(blobs.read("files", name)) == content
    assert info.size == len(content)
    found = await blobs.properties("files", name)
    assert (found.size, found.etag, found.metadata) == (len(content), info.etag, {"import_source": "quarry"})


async def test_slices_are_small_however_large_the_blob(blobs: Blobs, name: str) -> None:
    await blobs.upload("files", name, b"x" * 10_000_000)

    assert max(len(chunk) for chunk in blobs.read("files", name)) <= 1024 * 1024


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"id,title\n1,Leak\n"),
        (9, None, b"1,Leak\n"),
        (3, 5, b"title"),
        (11, 500, b"Leak\n"),
        (4, 0, b""),
        (99, None, b""),
        (17, 8, b""),
    ],
)
async def test_a_range_is_read(blobs: Blobs, name: str, offset: int, length: int | None, expected: bytes) -> None:
    await blobs.upload("files", name, b"id,title\n1,Leak\n")

    assert b"".join(blobs.read("files", name, offset=offset, length=length)) == expected


async def test_a_name_the_store_cannot_hold_is_refused(blobs: Blobs) -> None:
    with pytest.raises(InvalidRequestError):
        await blobs.upload("Not a container", "a.csv", b"id,title")


@pytest.mark.parametrize("name", ["quay/Übersicht März.csv", "quay/100% #1?.csv", "quay/a+b&c=d.csv", "quay/日本.json"])
async def test_names_may_hold_what_people_call_their_files(blobs: Blobs, http: httpx.AsyncClient, name: str) -> None:
    url = await blobs.upload_url("uploads", name, minutes=5)

    assert (await http.put(url, content=b"id,title", headers=PUT_BLOB)).status_code == 201
    assert await blobs.head("uploads", name, 100) == b"id,title"
    await blobs.delete("uploads", name)


async def test_the_head_of_short_and_empty_blobs_is_all_of_them(blobs: Blobs, name: str) -> None:
    await blobs.upload("files", name, b"id,title")
    await blobs.upload("files", f"{name}.empty", b"")

    assert await blobs.head("files", name, 2) == b"id"
    assert await blobs.head("files", name, 65536) == b"id,title"
    assert await blobs.head("files", f"{name}.empty", 65536) == b""


async def test_an_existing_blob_is_not_overwritten_unless_asked(blobs: Blobs, name: str) -> None:
    await blobs.upload("files", name, b"first")

    with pytest.raises(ConflictError):
        await blobs.upload("files", name, b"second")
    with pytest.raises(ConflictError):
        await blobs.upload("files", name, (b"s" * 3_000_000 for _ in range(3)))
    assert await blobs.head("files", name, 100) == b"first"

    await blobs.upload("files", name, b"third", overwrite=True)
    assert await blobs.head("files", name, 100) == b"third"


async def test_a_replaced_blob_is_not_mistaken_for_the_one_meant(blobs: Blobs, name: str) -> None:
    meant = await blobs.upload("files", name, b"first")
    await blobs.upload("files", name, b"other", overwrite=True)

    with pytest.raises(ConflictError, match="replaced"):
        list(blobs.read("files", name, etag=meant.etag))


async def test_a_blob_replaced_in_the_middle_of_reading_is_noticed(blobs: Blobs, name: str) -> None:
    await blobs.upload("files", name, b"a" * 20_000_000)
    reading = blobs.read("files", name)
    next(reading)
    await blobs.upload("files", name, b"b" * 20_000_000, overwrite=True)

    with pytest.raises(ConflictError, match="replaced"):
        list(reading)


async def test_missing_blobs_and_containers_are_not_found(blobs: Blobs, name: str) -> None:
    with pytest.raises(NotFoundError):
        list(blobs.read("files", name))
    with pytest.raises(NotFoundError):
        await blobs.properties("files", name)
    with pytest.raises(NotFoundError):
        await blobs.head("nowhere", name, 1)


async def test_deleting_twice_is_as_good_as_once(blobs: Blobs, name: str) -> None:
    await blobs.upload("files", name, b"gone soon")

    await blobs.delete("files", name)
    await blobs.delete("files", name)

    with pytest.raises(NotFoundError):
        await blobs.properties("files", name)


async def test_storage_out_of_reach_is_named_as_such(azurite: str) -> None:
    port = urlsplit(azurite.partition("BlobEndpoint=")[2]).port
    away = Blobs(make_settings(storage_connection=azurite.replace(f":{port}/", ":1/")))

    with pytest.raises(StorageUnavailableError):
        await away.ready()


async def test_ready_says_which_container_is_missing(azurite: str, blobs: Blobs) -> None:
    await blobs.ready()

    with pytest.raises(StorageUnavailableError, match="not-made-yet"):
        await Blobs(make_settings(storage_connection=azurite, files_container="not-made-yet")).ready()


async def test_upload_url_writes_its_blob(blobs: Blobs, http: httpx.AsyncClient, name: str) -> None:
    url = await blobs.upload_url("uploads", name, minutes=5)

    written = await http.put(url, content=b"id,title\n1,Leak\n", headers=PUT_BLOB)

    assert written.status_code == 201
    assert await blobs.head("uploads", name, 100) == b"id,title\n1,Leak\n"


async def test_upload_url_takes_a_large_file_in_blocks(blobs: Blobs, http: httpx.AsyncClient, name: str) -> None:
    url = await blobs.upload_url("uploads", name, minutes=5)

    for block in ("YTAx", "YTAy"):
        assert (await http.put(f"{url}&comp=block&blockid={block}", content=block.encode())).status_code == 201
    listing = "<BlockList><Latest>YTAx</Latest><Latest>YTAy</Latest></BlockList>"
    assert (await http.put(f"{url}&comp=blocklist", content=listing)).status_code == 201

    assert await blobs.head("uploads", name, 100) == b"YTAxYTAy"


async def test_upload_url_gives_away_nothing_else(blobs: Blobs, http: httpx.AsyncClient, name: str) -> None:
    await blobs.upload("uploads", name, b"confidential")
    await blobs.upload("uploads", f"{name}.other", b"not yours")
    url = await blobs.upload_url("uploads", name, minutes=5)

    assert (await http.get(url)).status_code == 403
    assert (await http.head(url)).status_code == 403
    assert (await http.delete(url)).status_code == 403
    assert (await http.put(url.replace(".csv?", ".csv.other?"), content=b"x", headers=PUT_BLOB)).status_code == 403
    assert (await http.get(url.replace(f"/{name}?", "?restype=container&comp=list&"))).status_code == 403
    assert await blobs.head("uploads", f"{name}.other", 100) == b"not yours"


async def test_an_expired_upload_url_is_refused(blobs: Blobs, http: httpx.AsyncClient, name: str) -> None:
    url = await blobs.upload_url("uploads", name, minutes=5, now=datetime.now(UTC) - timedelta(minutes=6))

    assert (await http.put(url, content=b"late", headers=PUT_BLOB)).status_code == 403
    with pytest.raises(NotFoundError):
        await blobs.properties("uploads", name)


async def test_in_azure_an_upload_url_is_good_for_https_alone(azurite: str, http: httpx.AsyncClient, name: str) -> None:
    blobs = Blobs(make_settings(storage_connection=azurite, environment="azure"))

    url = await blobs.upload_url("uploads", name, minutes=5)

    assert (await http.put(url, content=b"in the clear", headers=PUT_BLOB)).status_code == 403
