"""Queues: polling, five attempts, then the poison queue, as the Storage extension does."""

import asyncio
import base64
import binascii
import json
import logging
from typing import Any

from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
from azure.storage.queue import QueueMessage
from azure.storage.queue.aio import QueueClient
from azure_functions_runtime.bindings.datumdef import Datum

from local.host.config import HostConfig
from local.host.worker import Function, FunctionFailedError
from local.host.workers import Workers

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# A message is hidden from other readers while its function runs.
PROCESSING_SECONDS = 600


class QueueListener:
    """Feeds the messages of one queue to one function."""

    def __init__(self, workers: Workers, function: Function, config: HostConfig) -> None:
        self._workers = workers
        self._function = function
        self._config = config
        self._connection = config.connection_string(function.trigger)
        self._name = config.resolve(function.trigger["queueName"])

    async def run(self) -> None:
        async with QueueClient.from_connection_string(self._connection, self._name) as queue:
            while True:
                if not await self._process_batch(queue):
                    await asyncio.sleep(POLL_SECONDS)

    async def fire(self, text: str) -> None:
        """Run the function with a text as if it were a message."""
        await self._workers.invoke(self._function, Datum(text, "string"), _metadata(QueueMessage(text), text))

    async def _process_batch(self, queue: QueueClient) -> bool:
        """Process what is there; false when the queue is empty, missing or out of reach."""
        try:
            pages = queue.receive_messages(
                messages_per_page=self._config.queue_batch_size, visibility_timeout=PROCESSING_SECONDS
            ).by_page()
            messages = [message async for message in await anext(pages)]
            await asyncio.gather(*(self._process(queue, message) for message in messages))
        except (StopAsyncIteration, ResourceNotFoundError):
            return False
        except AzureError as error:
            log.warning("Queue %s cannot be read: %s", self._name, error)
            return False
        return bool(messages)

    async def _process(self, queue: QueueClient, message: QueueMessage) -> None:
        attempt = message.dequeue_count or 1
        if attempt > self._config.queue_max_attempts:  # the host died in every attempt so far
            return await self._give_up(queue, message)
        try:
            text = self._decode(message.content)
        except ValueError:
            return await self._give_up(queue, message)
        try:
            await self._workers.invoke(self._function, Datum(text, "string"), _metadata(message, text))
        except FunctionFailedError:
            if attempt >= self._config.queue_max_attempts:
                return await self._give_up(queue, message)
            await queue.update_message(message, visibility_timeout=self._config.queue_retry_seconds)
        else:
            await queue.delete_message(message)
        return None

    async def _give_up(self, queue: QueueClient, message: QueueMessage) -> None:
        await send(self._connection, f"{self._name}-poison", message.content)
        await queue.delete_message(message)
        log.error("Message %s of queue %s was moved to %s-poison", message.id, self._name, self._name)

    def _decode(self, content: str) -> str:
        if not self._config.queue_messages_are_base64:
            return content
        try:
            return base64.b64decode(content, validate=True).decode()
        except binascii.Error as error:
            raise ValueError("not base64") from error


async def send(connection: str, queue: str, content: str) -> None:
    """Put a message, already encoded, into a queue, which is created when missing."""
    async with QueueClient.from_connection_string(connection, queue) as client:
        try:
            await client.create_queue()
        except ResourceExistsError:
            log.debug("Queue %s exists", queue)
        await client.send_message(content)


def encode(message: dict[str, Any]) -> str:
    """A JSON message as the extensions write it."""
    return base64.b64encode(json.dumps(message).encode()).decode()


def _metadata(message: QueueMessage, text: str) -> dict[str, Datum]:
    times = {
        "ExpirationTime": message.expires_on,
        "InsertionTime": message.inserted_on,
        "NextVisibleTime": message.next_visible_on,
    }
    known = {name: Datum(json.dumps(time.isoformat()), "json") for name, time in times.items() if time}
    return known | {
        "Id": Datum(message.id or "", "string"),
        "DequeueCount": Datum(str(message.dequeue_count or 1), "json"),
        "PopReceipt": Datum(message.pop_receipt or "", "string"),
        "QueueTrigger": Datum(text, "string"),
    }
