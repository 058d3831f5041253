"""Steps through the rows of a table: what to ask for, what to do when it is too much, and whether it was answered."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from shared.connectors._servicenow_instance import Instance
from shared.connectors._servicenow_query import FEWEST_ROWS, Place, join, next_place, readable_time, to_literal
from shared.connectors._servicenow_records import stored
from shared.connectors._servicenow_session import Rows, Session
from shared.domain.errors import SourceError, Trouble

ROWS_A_PAGE = 1_000
JOURNAL_FIELDS = "sys_id,name,element,element_id,value,sys_created_on,sys_created_by"
_TIME_OF = {"sys_journal_field": "sys_created_on", "sys_audit_delete": "sys_created_on"}
_SYS_ID = re.compile(r"[0-9a-f]{32}")
# A row this much older than asked for: the condition on time was not applied, whatever the zone.
_ANY_ZONE = timedelta(hours=30)
_TOO_MUCH = frozenset({Trouble.PAYLOAD_INVALID, Trouble.TIMEOUT})


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a walk asks for."""

    table: str
    query: str = ""
    fields: str = ""
    limit: int = field(default_factory=lambda: ROWS_A_PAGE)
    # Every field with its label, so that a page is large.
    wide: bool = False
    since: datetime | None = None

    @property
    def time(self) -> str:
        return _TIME_OF.get(self.table, "sys_updated_on")


def journal(query: str) -> Reading:
    """Comments and work notes of the issues that `query` names."""
    return Reading(table="sys_journal_field", query=join(query, "elementINcomments,work_notes"), fields=JOURNAL_FIELDS)


class RowWalk:
    """Walks over tables of one instance."""

    def __init__(self, session: Session, instance: Instance) -> None:
        self._session = session
        self._instance = instance

    async def step(self, reading: Reading, part: Mapping[str, Any], place: Place) -> tuple[Rows, Place | None]:
        """The next rows of a walk and where it goes on; with fewer rows where the instance does not manage so many."""
        since = f"{reading.time}>={to_literal(reading.since, await self._instance.zone())}" if reading.since else ""
        query = join(reading.query, since, place.condition(part), "ORDERBYsys_id")
        while True:
            try:
                found = await self._session.rows(
                    reading.table, query=query, fields=reading.fields, limit=place.limit, wide=reading.wide
                )
                break
            except SourceError as error:
                fewer = place.limit // 2
                if error.trouble not in _TOO_MUCH or fewer < FEWEST_ROWS:
                    raise
                place = replace(place, limit=fewer)
        ids = [_id(row, reading) for row in found.rows]
        _check_obeyed(reading, place, ids, found.rows)
        return found, next_place(place, part, ids, found.total)


def _id(row: Mapping[str, Any], reading: Reading) -> str:
    sys_id = stored(row, "sys_id")
    if not sys_id:
        raise SourceError(Trouble.PERMISSION_DENIED, f"Rows of {reading.table} come without their sys_id")
    return sys_id


def changed(row: Mapping[str, Any], reading: Reading) -> datetime | None:
    """When the row was last written, as the walk sees it; a time that makes no sense is for `normalize` to refuse."""
    return readable_time(stored(row, reading.time))


def _check_obeyed(reading: Reading, place: Place, ids: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an answer to another query than ours: conditions and orders that an account may not use are dropped.

    https://www.servicenow.com/docs/r/platform-security/access-control/query-acl-rule.html
    """
    known = [sys_id for sys_id in ids if _SYS_ID.fullmatch(sys_id)]
    ordered = known == sorted(known) and not (known and _SYS_ID.fullmatch(place.after) and known[0] <= place.after)
    if ordered and not (reading.since and _begins_before(rows, reading, reading.since - _ANY_ZONE)):
        return
    detail = f"The instance ignored the {'time' if ordered else 'range and order of ids'} asked for on {reading.table}"
    hint = f"Allow the account query_range on sys_id and {reading.time} of {reading.table}"
    raise SourceError(Trouble.PERMISSION_DENIED, detail, hint=hint)


def _begins_before(rows: Sequence[Mapping[str, Any]], reading: Reading, moment: datetime) -> bool:
    return any(at < moment for row in rows if (at := changed(row, reading)))
