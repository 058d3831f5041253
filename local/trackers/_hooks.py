"""How trackers tell others of changes: who is told, what goes out again, and what goes wrong on demand.

The module of a tracker's own webhooks says what its deliveries look like and how they are signed. Nothing but loopback
is ever called, and redirects are not followed.
"""

import asyncio
import hashlib
import hmac
import itertools
import random
from base64 import b64decode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from aiohttp import web

from local.trackers.world import Issue

if TYPE_CHECKING:
    from local.trackers.service import Tracker

# Whoever sets up webhooks is not the account that reads.
OWNER_TOKEN = "owner-token"


class HookError(Exception):
    """A webhook that cannot be registered like this."""


@dataclass(kw_only=True, eq=False)
class Hook:
    """An address that is told of changes."""

    id: int
    url: str
    secret: str
    events: frozenset[str]  # empty: all
    project: str  # empty: all
    values: Mapping[str, Any]  # as it was registered
    uuid: str = field(default_factory=lambda: str(uuid4()))
    # Deliveries that failed without one in between that did not.
    failures: int = 0
    failing_since: datetime | None = None
    blocked_until: datetime | None = None
    # First attempts keep their order; more than that no tracker promises, and faults break it.
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: list["Delivery"] = field(default_factory=list["Delivery"])


@dataclass(frozen=True, kw_only=True)
class Message:
    """What a tracker has to tell, before it is known to whom."""

    event: str
    body: bytes
    project: str
    issue: Issue | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    # A consequence of another one, told in its own time.
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A message to one address. Its id stays when it is sent again."""

    hook: Hook
    message: Message
    number: int
    id: str = field(default_factory=lambda: str(uuid4()))


@dataclass(frozen=True)
class Sent:
    """One attempt; without a status nobody answered."""

    delivery: Delivery
    attempt: int
    status: int | None
    at: datetime
    seconds: float

    def told(self) -> dict[str, Any]:
        """For whoever watches from another process."""
        delivery = self.delivery
        return {
            "hook": delivery.hook.id,
            "id": delivery.id,
            "event": delivery.message.event,
            "attempt": self.attempt,
            "status": self.status,
        }


@dataclass
class HookFault:
    """What happens to the next `times` deliveries."""

    kind: Literal["lose", "repeat", "swap", "delay"]  # swap: it goes out behind the one that follows
    times: int = 1
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(type(self).__annotations__["kind"]):
            raise HookError(f"There is no fault {self.kind}.")


class Hooks:
    """The webhooks of one tracker."""

    # Attempts in all, and the answers after which there is another one; no answer is one of them.
    attempts: ClassVar[int] = 1
    timeout_seconds: float = 10.0

    def __init__(self, tracker: "Tracker") -> None:
        self.tracker = tracker
        self.hooks: dict[int, Hook] = {}
        self.faults: list[HookFault] = []
        self.sent: deque[Sent] = deque(maxlen=10_000)
        # Between attempts, at random; and how much later than its cause a late message goes out.
        self.retry_seconds: tuple[float, float] = (300, 900)
        self.late_seconds: float = 1
        self._random = random.Random(1)
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        tracker.world.listeners.append(self._changed)

    # For subclasses

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Add the tracker's own calls to register webhooks, if it has any."""

    def is_about(self, request: web.Request) -> bool:
        """Whether the request is one of those calls: they are the owner's."""
        return False

    def refused(self, request: web.Request) -> web.Response:
        """The refusal of such a call to everybody else."""
        raise NotImplementedError

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        """What a change makes the tracker tell."""
        raise NotImplementedError

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        """The headers of an attempt, its signature among them."""
        raise NotImplementedError

    def body(self, delivery: Delivery) -> bytes:
        """The bytes that are signed and sent."""
        return delivery.message.body

    def accepts(self, hook: Hook, message: Message) -> bool:
        """Whether the webhook asked for such messages."""
        return hook.project in {"", message.project} and (not hook.events or message.event in hook.events)

    def goes_again(self, hook: Hook, status: int | None) -> bool:
        """Whether an answer is followed by another attempt."""
        return False

    def answered(self, hook: Hook, status: int | None) -> None:
        """Take note of an answer, None if there was none."""

    def registered(self, hook: Hook) -> None:
        """What the tracker does when a webhook is new."""

    # Who is told

    def register(
        self, url: str, secret: str = "", *, events: Iterable[str] = (), project: str = "", **values: Any
    ) -> Hook:
        """A new webhook, as a person would set it up at the tracker."""
        if not _is_loopback(url):
            raise HookError("The url must be http or https on loopback: simulated trackers call nobody else.")
        if project and project not in self.tracker.world.projects:
            raise HookError(f"There is no project {project}.")
        number = next(self._numbers)
        hook = Hook(id=number, url=url, secret=secret, events=frozenset(events), project=project, values=values)
        self.hooks[hook.id] = hook
        self.registered(hook)
        return hook

    def is_owner(self, request: web.Request) -> bool:
        """Whether the caller may set up webhooks, in whatever way this tracker's callers say who they are."""
        kind, _, value = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "basic":
            value = _password(value)
        return OWNER_TOKEN in {value, request.headers.get("PRIVATE-TOKEN")}

    # Sending

    def _changed(self, before: Issue | None, after: Issue | None) -> None:
        # Rendering costs; property tests and benchmarks change millions of issues that nobody is told of.
        for message in self.messages(before, after) if self.hooks else ():
            for hook in self.hooks.values():
                if self.accepts(hook, message):
                    self.send(hook, message)

    def send(self, hook: Hook, message: Message) -> Delivery | None:
        """Send to one address, or do what a fault wants; None while the webhook is switched off."""
        if hook.blocked_until is not None and datetime.now(UTC) < hook.blocked_until:
            return None
        delivery = self.addressed(hook, message)
        fault = self._due_fault()
        if fault and fault.kind == "swap":
            hook.held.append(delivery)
            return delivery
        after = self.late_seconds if message.late else 0.0
        for _ in range({"lose": 0, "repeat": 2}.get(fault.kind, 1) if fault else 1):
            self._start(delivery, after + (fault.seconds if fault else 0.0))
        while hook.held:
            self._start(hook.held.pop(0), 0.0)
        return delivery

    def addressed(self, hook: Hook, message: Message) -> Delivery:
        return Delivery(hook=hook, message=message, number=next(self._numbers))

    def send_on_request(self, delivery: Delivery) -> None:
        """Whatever faults and failures there were. What was sent before keeps body and id, and is signed anew."""
        self._start(delivery, 0.0)

    def _due_fault(self) -> HookFault | None:
        if not self.faults:
            return None
        fault = self.faults[0]
        fault.times -= 1
        if fault.times <= 0:
            self.faults.pop(0)
        return fault

    def _start(self, delivery: Delivery, after: float) -> None:
        task = asyncio.get_running_loop().create_task(self._deliver(delivery, after))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, delivery: Delivery, after: float) -> None:
        hook = delivery.hook
        if after:
            await asyncio.sleep(after)
        async with hook.turn:
            status = await self._attempt(delivery, 0)
        for attempt in range(1, self.attempts):
            if not self.goes_again(hook, status):
                return
            await asyncio.sleep(self._random.uniform(*self.retry_seconds))
            status = await self._attempt(delivery, attempt)

    async def _attempt(self, delivery: Delivery, attempt: int) -> int | None:
        begun = datetime.now(UTC)
        headers = {"Content-Type": "application/json", **delivery.message.headers, **self.headers(delivery, attempt)}
        if self._session is None:
            self._session = aiohttp.ClientSession()
        limit = aiohttp.ClientTimeout(total=self.timeout_seconds)
        status = None
        try:
            async with self._session.post(
                delivery.hook.url, data=self.body(delivery), headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError):
            status = None
        ended = datetime.now(UTC)
        self.sent.append(Sent(delivery, attempt, status, ended, (ended - begun).total_seconds()))
        self._note(delivery.hook, status)
        return status

    def _note(self, hook: Hook, status: int | None) -> None:
        if is_success(status):
            hook.failures, hook.failing_since, hook.blocked_until = 0, None, None
        else:
            hook.failures += 1
            hook.failing_since = hook.failing_since or datetime.now(UTC)
        self.answered(hook, status)

    def set_pace(self, *, retry_seconds: float | None = None, late_seconds: float | None = None) -> None:
        """How long to wait between attempts, and with late messages."""
        if retry_seconds is not None:
            self.retry_seconds = (retry_seconds, retry_seconds)
        if late_seconds is not None:
            self.late_seconds = late_seconds

    @property
    def under_way(self) -> int:
        """Deliveries that are not over; those held until the next one are not among them."""
        return len(self._tasks)

    async def drain(self) -> None:
        """Wait for everything that is on its way."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()
            self._session = None


def is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def hex_hmac(secret: str, content: bytes) -> str:
    """HMAC-SHA256 in lower-case hexadecimal digits."""
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Parts[T]:
    """How a list of an issue changed."""

    added: Sequence[T]
    edited: Sequence[tuple[T, T]]
    removed: Sequence[T]


def parts[T](before: Iterable[T], after: Iterable[T]) -> Parts[T]:
    """Compare comments or worklogs by their ids."""
    old = {each.id: each for each in before}  # type: ignore[attr-defined]
    new = {each.id: each for each in after}  # type: ignore[attr-defined]
    return Parts(
        [each for number, each in new.items() if number not in old],
        [(old[number], each) for number, each in new.items() if number in old and old[number] != each],
        [each for number, each in old.items() if number not in new],
    )


def changed(before: Issue, after: Issue, names: Iterable[str]) -> list[str]:
    """Those of the fields that differ."""
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _password(pair: str) -> str:
    """Of basic authentication; nothing if it is none."""
    try:
        return b64decode(pair).decode().partition(":")[2]
    except ValueError:
        return ""


def _is_loopback(url: str) -> bool:
    target = urlsplit(url)
    host = target.hostname or ""
    try:
        return target.scheme in {"http", "https"} and (host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
