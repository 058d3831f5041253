"""Notice when a source's records change their shape: a field that is new, vanished, or of another type; told once."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

from shared.store import connections, jobs
from shared.store.database import Connection

# What this worker knows to be in the table already; others may know the same.
_known: dict[UUID, dict[str, set[tuple[str, str]]]] = {}
# Job → stream → fields that are written down already.
_noted: dict[UUID, tuple[UUID, dict[str, set[str]]]] = {}
_MOST_CONNECTIONS = 500
# How many records of a page are looked at closely; of the others only what brings a new name.
_CLOSELY = 10


def shape_of(raw: Mapping[str, Any]) -> dict[str, str]:
    """Field → kind of value, of a record and of its `fields` where it has those. Empty values say nothing."""
    shape: dict[str, str] = {}
    for name, value in raw.items():
        if name == "fields" and isinstance(value, dict):
            inside = cast("dict[str, Any]", value)
            shape |= {f"fields.{inner}": kind for inner, each in inside.items() if (kind := _kind(each))}
        elif kind := _kind(value):
            shape[name] = kind
    return shape


def _kind(value: object) -> str:
    match value:
        case None | "" | [] | {}:
            return ""
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case _:
            return "object"


class Shapes:
    """What the records of one page look like, by stream: which fields occur, and of what kind their values are."""

    def __init__(self) -> None:
        self.present: dict[str, set[str]] = defaultdict(set)
        self.kinds: dict[str, dict[str, str]] = defaultdict(dict)
        self._looked_at: Counter[str] = Counter()

    def see(self, stream: str, raw: Mapping[str, Any]) -> None:
        """Look at a record, closely if it is one of the first or has a field that no other had."""
        present = self.present[stream]
        familiar = raw.keys() <= present
        if isinstance(inside := raw.get("fields"), dict):
            present.update(f"fields.{name}" for name in cast("dict[str, Any]", inside))
        if familiar and self._looked_at[stream] >= _CLOSELY:
            return
        self._looked_at[stream] += 1
        present.update(raw)
        self.kinds[stream].update(shape_of(raw))


async def learn_fields(connection: Connection, connection_id: UUID, job_id: UUID, shapes: Shapes) -> None:
    """Compare the shapes on a page with what is known of the connection, and log what is new, once per field."""
    if len(_known) > _MOST_CONNECTIONS:
        _known.clear()
        _noted.clear()
    known = _known.setdefault(connection_id, {})
    for stream, shape in sorted(shapes.kinds.items()):
        of_stream = known.setdefault(stream, set())
        unknown = {path: kind for path, kind in shape.items() if (path, kind) not in of_stream}
        if not unknown:
            continue
        first_time = not of_stream
        await connections.lock_fields(connection, connection_id)
        news = await connections.learn_fields(connection, connection_id, stream, unknown)
        of_stream.update(unknown.items())
        for path, before, kind in news:
            if before:
                message = f"{stream}: the field {path} was {before} and is now {kind}"
                await jobs.log(connection, job_id, "warning", message, field=path, before=before, after=kind)
            elif not first_time:
                await jobs.log(connection, job_id, "info", f"{stream}: new field {path} ({kind})", field=path)
    await _note_present(connection, connection_id, job_id, shapes.present)


async def _note_present(
    connection: Connection, connection_id: UUID, job_id: UUID, present: Mapping[str, set[str]]
) -> None:
    """Write down which fields occur in a job, each once."""
    noted = _noted.setdefault(connection_id, (job_id, {}))
    if noted[0] != job_id:
        noted = _noted[connection_id] = (job_id, {})
    for stream, paths in sorted(present.items()):
        before = noted[1].setdefault(stream, set())
        if fresh := paths - before:
            await connections.lock_fields(connection, connection_id)
            await connections.note_fields(connection, connection_id, job_id, stream, sorted(fresh))
            before |= fresh


async def tell_vanished(connection: Connection, connection_id: UUID, job_id: UUID) -> None:
    """After a full reading: log the fields no record had any more."""
    for stream, path in await connections.mark_vanished(connection, connection_id, job_id):
        await jobs.log(connection, job_id, "warning", f"{stream}: the field {path} is not sent any more", field=path)
