"""Blobs: the container is scanned some times a second; a receipt per name and version keeps a blob from firing twice.

The content of a large blob is not read: the worker protocol would hold it in memory several times over. Its name,
address, size and metadata are there, and a function that wants the bytes opens the blob and streams it.
"""

import asyncio
import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import ContainerClient
from azure_functions_runtime.bindings.datumdef import Datum

from local.host.background import Background
from local.host.config import HostConfig
from local.host.queue import encode, send
from local.host.worker import Function, FunctionFailedError
from local.host.workers import Workers

log = logging.getLogger(__name__)

SCAN_SECONDS = 0.25
CONTENT_LIMIT = 4 * 1024 * 1024
POISON_QUEUE = "webjobs-blobtrigger-poison"

BlobVersion = tuple[str, str]


class BlobListener:
    """Feeds new and changed blobs of one container to one function."""

    def __init__(self, workers: Workers, function: Function, config: HostConfig, background: Background) -> None:
        self._workers = workers
        self._function = function
        self._connection = config.connection_string(function.trigger)
        self._max_attempts = config.blob_max_attempts
        self._background = background
        self._slots = asyncio.Semaphore(config.blob_concurrency)
        path = config.resolve(function.trigger["path"])
        self._container, _, blob_path = path.partition("/")
        self._pattern = blob_pattern(blob_path)
        self._receipts = Receipts(config.state_dir / "blob-receipts" / f"{function.name}.jsonl")
        self._under_way: set[BlobVersion] = set()
        self._attempts: Counter[BlobVersion] = Counter()

    async def run(self) -> None:
        async with ContainerClient.from_connection_string(self._connection, self._container) as container:
            while True:
                try:
                    await self._scan(container)
                except ResourceNotFoundError:
                    log.debug("Container %s does not exist yet", self._container)
                except AzureError as error:
                    log.warning("Container %s cannot be read: %s", self._container, error)
                await asyncio.sleep(SCAN_SECONDS)

    async def fire(self, path: str) -> None:
        """Run the function with the blob at `container/name`."""
        async with ContainerClient.from_connection_string(self._connection, self._container) as container:
            blob = container.get_blob_client(path.removeprefix(f"{self._container}/"))
            await self._invoke(container, await blob.get_blob_properties())

    async def _scan(self, container: ContainerClient) -> None:
        async for blob in container.list_blobs(include=["metadata"]):
            version = (blob.name, blob.etag)
            known = version in self._receipts or version in self._under_way
            if not known and self._pattern.fullmatch(blob.name):
                self._under_way.add(version)
                self._background.start(self._process(container, blob, version))

    async def _process(self, container: ContainerClient, blob: BlobProperties, version: BlobVersion) -> None:
        try:
            async with self._slots:
                await self._invoke(container, blob)
        except ResourceNotFoundError:
            log.info("Blob %s was deleted before its function ran", blob.name)
        except FunctionFailedError:
            self._attempts[version] += 1
            if self._attempts[version] < self._max_attempts:
                return
            await self._give_up(blob)
        finally:
            self._under_way.discard(version)
        self._attempts.pop(version, None)
        self._receipts.add(version)

    async def _invoke(self, container: ContainerClient, blob: BlobProperties) -> None:
        client = container.get_blob_client(blob.name)
        content = b""
        if blob.size <= CONTENT_LIMIT:
            content = await (await client.download_blob()).readall()
        await self._workers.invoke(self._function, Datum(content, "bytes"), self._metadata(blob, client.url))

    def _metadata(self, blob: BlobProperties, url: str) -> dict[str, Datum]:
        properties = {
            "ContentLength": blob.size,
            "ContentType": blob.content_settings.content_type,
            "ETag": f'"{_bare(blob.etag)}"',
            "LastModified": blob.last_modified.isoformat(),
            "BlobType": 2,
        }
        found = self._pattern.fullmatch(blob.name)
        names = found.groupdict() if found else {}
        return {name: Datum(value, "string") for name, value in names.items()} | {
            "BlobTrigger": Datum(f"{self._container}/{blob.name}", "string"),
            "Uri": Datum(json.dumps(url), "json"),
            "Properties": Datum(json.dumps(properties), "json"),
            "Metadata": Datum(json.dumps(blob.metadata or {}), "json"),
        }

    async def _give_up(self, blob: BlobProperties) -> None:
        message: dict[str, Any] = {
            "Type": "BlobTrigger",
            "FunctionId": f"Host.Functions.{self._function.name}",
            "BlobType": "BlockBlob",
            "ContainerName": self._container,
            "BlobName": blob.name,
            "ETag": f'"{_bare(blob.etag)}"',
        }
        await send(self._connection, POISON_QUEUE, encode(message))
        log.error("Blob %s/%s failed %d times and was given up", self._container, blob.name, self._max_attempts)


class Receipts:
    """The blob versions that are done, kept in a file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._versions: set[BlobVersion] = {(name, etag) for name, etag in map(json.loads, lines)}

    def __contains__(self, version: object) -> bool:
        return version in self._versions

    def add(self, version: BlobVersion) -> None:
        self._versions.add(version)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(version) + "\n")


def blob_pattern(path: str) -> re.Pattern[str]:
    """A binding path such as `{source}/{name}.csv`; every part takes as little as it can, the last one the rest."""
    pieces = re.split(r"\{(\w+)\}", path)
    return re.compile("".join(f"(?P<{p}>.+?)" if i % 2 else re.escape(p) for i, p in enumerate(pieces)), re.DOTALL)


def _bare(etag: str) -> str:
    return etag.strip('"')
