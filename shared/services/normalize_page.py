"""Put a page of records into our words, each as soon as it is read.

A record is normalized, written as JSON and hashed before the next one is looked at, while the processor has it at hand;
what is kept of it is what its table takes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from shared.connectors._protocol import Page, Sent
from shared.domain.rejection import Problem
from shared.domain.stream import Record, Stream
from shared.domain.sync import content_hash, encode_record
from shared.domain.turns import in_turns
from shared.services.learn_fields import Shapes
from shared.store.stream_rows import Row

_SHOWN_CHARACTERS = 200


class Normalize(Protocol):
    """A connector's normalize."""

    def __call__(self, sent: Sent) -> Record: ...


class Partial(NamedTuple):
    """What a reading does not bring, so that what is stored of it stays; and what it brings, as it came."""

    fields: Sequence[str]
    payload_keys: Sequence[str]
    payload: dict[str, Any]


class Normal(NamedTuple):
    """A record in our words, as its table takes it."""

    row: Row
    partial: Partial | None = None

    @property
    def updated(self) -> datetime | None:
        """When the source says it was last changed."""
        return self.row.values["source_updated_at"]


@dataclass(frozen=True)
class Refused:
    """A record that makes no sense, as rejections keep it."""

    row: int
    external_id: str | None
    problems: tuple[Problem, ...]
    payload: dict[str, Any]


@dataclass
class Normalized:
    """A page in our words. The last of several versions of one record on a page is the one that counts."""

    records: dict[Stream, dict[str, Normal]] = field(default_factory=dict[Stream, dict[str, Normal]])
    refused: list[tuple[Stream, Refused]] = field(default_factory=list[tuple[Stream, Refused]])
    shapes: Shapes = field(default_factory=Shapes)


async def normalize_page(normalize: Normalize, page: Page, *, first_row: int) -> Normalized:
    """Turn what the source sent into records; what makes no sense is told apart, and nothing stops for it."""
    done = Normalized()
    async for number, sent in in_turns(enumerate(page.records, first_row)):
        done.shapes.see(sent.stream, sent.raw)
        try:
            record = normalize(sent)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            done.refused.append((sent.stream, _refuse(number, sent, error)))
            continue
        versions = done.records.setdefault(sent.stream, {})
        earlier = versions.get(record.external_id)
        if earlier is None or not _is_older(record.source_updated_at, earlier.updated):
            versions[record.external_id] = _normal(record, sent)
    return done


def _normal(record: Record, sent: Sent) -> Normal:
    # The model has done its work, and its fields are taken over: to copy them would cost more than to write them.
    values = vars(record)
    payload: dict[str, Any] = values.pop("payload")
    row = _row(record.external_id, values, payload, sent.scope)
    if not sent.context.get("keep"):
        return Normal(row)
    return Normal(row, Partial(sent.context["keep"], sent.context.get("keep_payload", ()), payload))


def complete(normal: Normal, kept: Mapping[str, Any] | None) -> Row:
    """The whole row of a record, of which a part may be what is stored already: {field: value, "payload": {…}}."""
    if normal.partial is None or kept is None:
        return normal.row
    values = {**normal.row.values, **{name: value for name, value in kept.items() if name != "payload"}}
    payload = {**normal.partial.payload, **kept["payload"]}
    return _row(normal.row.external_id, values, payload, normal.row.scope)


def _row(external_id: str, values: Mapping[str, Any], payload: dict[str, Any], scope: str) -> Row:
    encoded = encode_record(payload)
    return Row(external_id, values, encoded, content_hash(encoded), scope)


def _is_older(moment: datetime | None, other: datetime | None) -> bool:
    return moment is not None and other is not None and moment < other


def _refuse(number: int, sent: Sent, error: Exception) -> Refused:
    identity = sent.raw.get("id") or sent.raw.get("sys_id")
    external_id = str(identity) if isinstance(identity, str | int) else None
    return Refused(number, external_id, tuple(_problems(sent, error)), sent.raw)


def _problems(sent: Sent, error: Exception) -> list[Problem]:
    hint = f"Mend it in the tracker; the next sync reads it again. It is one of the {sent.stream}"
    if isinstance(error, ValidationError):
        return [
            Problem(
                code="invalid_field",
                column=".".join(map(str, each["loc"])) or None,
                value=str(each["input"])[:_SHOWN_CHARACTERS],
                reason=each["msg"],
                hint=hint,
            )
            for each in error.errors(include_url=False, include_context=False)
        ]
    reason = f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]
    return [Problem(code="unreadable_record", reason=reason, hint=hint)]
