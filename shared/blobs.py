"""Files in blob storage; the only module that knows the storage SDK.

The SDK is used in its synchronous form: workers stream from threads of their own, and async callers are served through
`asyncio.to_thread` here. A connection string (Azurite, tests) brings an account key; without one the identity of the
app is used, and upload addresses are signed with a user delegation key.
"""
# The SDK's own annotations leave type arguments out.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import asyncio
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import (
    BlobClient,
    BlobSasPermissions,
    BlobServiceClient,
    UserDelegationKey,
    generate_blob_sas,
)

from shared.domain.errors import ConflictError, InvalidRequestError, NotFoundError, StorageUnavailableError
from shared.local_copies import LocalCopies, Version
from shared.settings import MEBIBYTE, Settings

# What one request fetches: large enough that the round trip does not count, small enough to hold several in memory.
# Ranges up to 4 MB are slower, because the store computes a checksum of each.
_REQUEST_BYTES = 8 * MEBIBYTE
# What a reader is handed at a time, and what the transport reads from the socket at a time.
_SLICE_BYTES = 1 * MEBIBYTE
_BLOCK_BYTES = 4 * MEBIBYTE
_RETRIES = 3
_BAD_REQUEST = 400
_RANGE_NOT_SATISFIABLE = 416
_CONNECT_SECONDS = 5
_READ_SECONDS = 30
_DELEGATION_KEY_HOURS = 12


@dataclass(frozen=True)
class BlobInfo:
    """What the store knows about a blob; `etag` changes with every write and is quoted as HTTP quotes it."""

    size: int
    etag: str
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    content_type: str | None = None


class Blobs:
    """Reads and writes whole blobs by container and name. One per process; safe to use from several threads."""

    def __init__(self, settings: Settings, *, credential: TokenCredential | None = None) -> None:
        options: dict[str, Any] = {
            "max_single_get_size": _REQUEST_BYTES,
            "max_chunk_get_size": _REQUEST_BYTES,
            "max_single_put_size": _BLOCK_BYTES,
            "max_block_size": _BLOCK_BYTES,
            "connection_data_block_size": _SLICE_BYTES,
            "connection_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "retry_total": _RETRIES,
            "initial_backoff": 0.5,
            "increment_base": 2,
        }
        connection = settings.storage_connection.get_secret_value()
        if connection:
            self._service = BlobServiceClient.from_connection_string(connection, **options)
        else:
            self._service = BlobServiceClient(
                settings.storage_blob_uri, credential=credential or _identity(), **options
            )
        self._copies = LocalCopies()
        self._containers = (settings.uploads_container, settings.files_container)
        self._https_only = settings.environment != "local"
        self._delegation_key: UserDelegationKey | None = None
        self._delegation_key_until = datetime.min.replace(tzinfo=UTC)
        self._delegation_lock = threading.Lock()

    async def upload(
        self,
        container: str,
        name: str,
        chunks: Iterable[bytes] | bytes,
        *,
        metadata: dict[str, str] | None = None,
        overwrite: bool = False,
        keep_bytes: int | None = None,
    ) -> BlobInfo:
        """Write one blob; it becomes visible as a whole or not at all. ConflictError if the name is taken.

        With `keep_bytes`, the size of what is written, a copy stays on the worker's disk, if there is room, for later
        readings that name no etag.
        """
        if keep_bytes is not None and not isinstance(chunks, bytes):
            chunks = self._copies.keep(Version(container, name), chunks, start=0, size=keep_bytes)
        return await asyncio.to_thread(self._upload, container, name, chunks, metadata or {}, overwrite=overwrite)

    def _upload(
        self, container: str, name: str, chunks: Iterable[bytes] | bytes, metadata: dict[str, str], *, overwrite: bool
    ) -> BlobInfo:
        counted = _Counted([chunks] if isinstance(chunks, bytes) else chunks)
        with _domain_errors(container, name):
            # With a checksum of each block the store need not make one of its own.
            written = self._blob(container, name).upload_blob(
                counted, overwrite=overwrite, metadata=metadata, validate_content=True
            )
        return BlobInfo(size=counted.size, etag=written["etag"], metadata=metadata)

    def read(
        self,
        container: str,
        name: str,
        *,
        offset: int = 0,
        length: int | None = None,
        etag: str | None = None,
        keep: bool = False,
    ) -> Iterator[bytes]:
        """Stream a blob or a range of it, a megabyte at a time; blocks, so it belongs in a worker thread.

        With `etag`, ConflictError if the blob is no longer the one that was meant; a blob that is replaced in the
        middle of the reading is noticed in any case. A range behind the end is empty, as it is in a file. With `keep`,
        what is read to the end stays on the worker's disk, if there is room, for later readings of the same version.
        """
        if length == 0:
            return
        version = Version(container, name, etag)
        if copy := self._copies.find(version, offset):
            yield from copy.read(offset, length)
            return
        condition: dict[str, Any] = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}
        with _domain_errors(container, name):
            try:
                download = self._blob(container, name).download_blob(offset=offset, length=length, **condition)
            except HttpResponseError as error:
                if error.status_code == _RANGE_NOT_SATISFIABLE:
                    return
                raise
        chunks = _ahead(download.chunks(), container, name)
        if keep and etag and length is None:
            chunks = self._copies.keep(version, chunks, start=offset, size=download.size)
        yield from chunks

    def forget_copies(self, *names: str | None) -> None:
        """Let go of the blobs of these names that were kept on the worker's disk."""
        self._copies.forget(names)

    async def head(self, container: str, name: str, length: int) -> bytes:
        """The first bytes of a blob; all of it if it is shorter."""
        return await asyncio.to_thread(lambda: b"".join(self.read(container, name, length=length)))

    async def properties(self, container: str, name: str) -> BlobInfo:
        """Size, etag, metadata and content type; NotFoundError if there is no such blob."""
        return await asyncio.to_thread(self._properties, container, name)

    def _properties(self, container: str, name: str) -> BlobInfo:
        with _domain_errors(container, name):
            found = self._blob(container, name).get_blob_properties()
        return BlobInfo(
            size=found.size,
            etag=found.etag or "",
            metadata=dict(found.metadata or {}),
            content_type=found.content_settings.content_type,
        )

    async def delete(self, container: str, name: str) -> None:
        """Remove a blob; one that is gone already is as good."""
        await asyncio.to_thread(self._delete, container, name)

    def _delete(self, container: str, name: str) -> None:
        with _domain_errors(container, name):
            try:
                self._blob(container, name).delete_blob(delete_snapshots="include")
            except ResourceNotFoundError:
                return

    async def create_containers(self) -> None:
        """Create the containers of this installation where they are missing; in Azure the deployment does it."""
        await asyncio.to_thread(self._create_containers)

    def _create_containers(self) -> None:
        for container in self._containers:
            with _domain_errors(container, ""):
                try:
                    self._service.create_container(container)
                except ResourceExistsError:
                    continue

    async def ready(self) -> None:
        """Raise StorageUnavailableError unless both containers can be reached; answers within some seconds."""
        await asyncio.to_thread(self._ready)

    def _ready(self) -> None:
        for container in self._containers:
            with _domain_errors(container, ""):
                client = self._service.get_container_client(container)
                if not client.exists(timeout=_CONNECT_SECONDS, retry_total=0):
                    raise StorageUnavailableError(f"The container {container} does not exist")

    async def upload_url(self, container: str, name: str, *, minutes: int, now: datetime | None = None) -> str:
        """An address under which anybody may write this one blob, and nothing else, for some minutes.

        Plain HTTP is allowed only on a developer's machine.
        """
        expiry = (now or datetime.now(UTC)) + timedelta(minutes=minutes)
        return await asyncio.to_thread(self._upload_url, container, name, expiry)

    def _upload_url(self, container: str, name: str, expiry: datetime) -> str:
        blob = self._blob(container, name)
        key = getattr(self._service.credential, "account_key", None)
        secret: dict[str, Any] = {"account_key": key} if key else {"user_delegation_key": self._delegation(expiry)}
        signature = generate_blob_sas(
            blob.account_name or "",
            container,
            name,
            permission=BlobSasPermissions(create=True, write=True),
            expiry=expiry,
            protocol="https" if self._https_only else "https,http",
            **secret,
        )
        return f"{blob.url}?{signature}"

    def _delegation(self, needed_until: datetime) -> UserDelegationKey:
        """A user delegation key that outlives the address it signs; fetched about twice a day."""
        with self._delegation_lock:
            if self._delegation_key is None or self._delegation_key_until < needed_until:
                now = datetime.now(UTC)
                until = max(needed_until, now) + timedelta(hours=_DELEGATION_KEY_HOURS)
                with _domain_errors("", ""):
                    # The start lies in the past because clocks differ.
                    self._delegation_key = self._service.get_user_delegation_key(now - timedelta(minutes=15), until)
                self._delegation_key_until = until
            return self._delegation_key

    def _blob(self, container: str, name: str) -> BlobClient:
        return self._service.get_blob_client(container, name)


def _ahead(chunks: Iterator[bytes], container: str, name: str) -> Iterator[bytes]:
    """Slices of a download; the next request is under way while the caller works on this one's bytes."""
    with ThreadPoolExecutor(1, thread_name_prefix="blob-read") as ahead:
        coming = ahead.submit(next, chunks, None)
        while True:
            with _domain_errors(container, name):
                chunk = coming.result()
            if chunk is None:
                return
            coming = ahead.submit(next, chunks, None)
            for start in range(0, len(chunk), _SLICE_BYTES):
                yield chunk[start : start + _SLICE_BYTES]


class _Counted:
    """Passes chunks on and counts their bytes, because the store does not say how much it was sent."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.size = 0
        self._chunks = chunks

    def __iter__(self) -> Generator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            yield chunk


def _identity() -> TokenCredential:
    # Imported only where an identity is used: the package costs a cold start a third of a second.
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@contextmanager
def _domain_errors(container: str, name: str) -> Generator[None]:
    """Say what happened in our words; the SDK's messages hold addresses, and with them signatures."""
    where = f"{container}/{name}" if name else container
    try:
        yield
    except ResourceNotFoundError as error:
        raise NotFoundError(f"There is no file {where}") from error
    except ResourceExistsError as error:
        raise ConflictError(f"There is a file {where} already") from error
    except ResourceModifiedError as error:
        raise ConflictError(f"The file {where} was replaced meanwhile") from error
    except HttpResponseError as error:
        if error.status_code == _BAD_REQUEST:
            raise InvalidRequestError(f"The storage cannot hold a file called {where}") from error
        raise StorageUnavailableError(f"The storage answered {error.status_code or 'with nonsense'}") from error
    except AzureError as error:
        raise StorageUnavailableError("The storage does not answer") from error
