"""What belongs to an issue of Sentry beside its own record: its latest event and its comments."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.connectors._http import together
from shared.connectors._protocol import Children, Gap, Sent
from shared.connectors._sentry_api import Extra, SentryAPI
from shared.connectors._sentry_records import PARTIAL_PAYLOAD_KEY, is_object, member
from shared.domain.stream import Stream

# What only a single issue brings, or only a list, and the fraction of a second that lists do not know: an issue that a
# webhook told of would come back as a changed one with the next list, and again with the next webhook.
_OF_ONE_ANSWER = {
    *("activity", "firstRelease", "lastRelease", "openPeriods", "participants", "seenBy", "stats", "tags"),
    *("pluginActions", "pluginContexts", "pluginIssues", "userReportCount"),
    *("filtered", "lifetime"),
}
_FRACTION = re.compile(r"\.\d+")
_KEPT = {"keep": ["stack_trace", "environment"], "keep_payload": [PARTIAL_PAYLOAD_KEY]}


@dataclass(frozen=True)
class Detailed:
    """Issues with what belongs to them."""

    records: Sequence[Sent]
    complete: Sequence[Children]
    gaps: Sequence[Gap]


@dataclass(frozen=True)
class Details:
    """Which details the settings want."""

    events: bool
    comments: bool

    def without(self, items: Sequence[dict[str, Any]], scope: str) -> Detailed:
        """Issues alone, as a preview shows them: twenty of them must not cost twenty calls."""
        return Detailed([self._issue_record(raw, None, _home(raw, scope)) for raw in items], (), ())

    async def read(self, api: SentryAPI, items: Sequence[dict[str, Any]], scope: str, *, events: bool) -> Detailed:
        """Read the details of some issues, side by side."""
        evented = list(items) if events and self.events else []
        commented = [raw for raw in items if raw.get("numComments") != 0] if self.comments else []
        extras = await together(
            [
                *(api.latest_event(str(raw["id"])) for raw in evented),
                *(api.notes(str(raw["id"])) for raw in commented),
            ]
        )
        event_of = {str(raw["id"]): extra for raw, extra in zip(evented, extras, strict=False)}
        notes_of = {str(raw["id"]): extra for raw, extra in zip(commented, extras[len(evented) :], strict=True)}
        records: list[Sent] = []
        complete: list[Children] = []
        for raw in items:
            issue_id = str(raw["id"])
            home = _home(raw, scope)
            records.append(self._issue_record(raw, event_of.get(issue_id, Extra()).data, home))
            notes = notes_of.get(issue_id, Extra([]))
            told: list[dict[str, Any]] = notes.data or []
            context = {"issue_id": issue_id, "issue_key": raw.get("shortId")}
            records.extend(Sent(Stream.COMMENTS, note, home, context) for note in told)
            if self.comments and not notes.refused:
                complete.append(Children(Stream.COMMENTS, issue_id, frozenset(str(note["id"]) for note in told)))
        gaps = [*_refused(Stream.ISSUES, scope, event_of), *_refused(Stream.COMMENTS, scope, notes_of)]
        return Detailed(records, complete, gaps)

    def _issue_record(self, raw: dict[str, Any], event: object, scope: str) -> Sent:
        # The counters of a list are of its 90 days and fall as days go by; `lifetime` has those of the issue.
        payload = {name: value for name, value in raw.items() if name not in _OF_ONE_ANSWER} | member(raw, "lifetime")
        if isinstance(seen := payload.get("lastSeen"), str):
            payload["lastSeen"] = _FRACTION.sub("", seen)
        if is_object(event):
            return Sent(Stream.ISSUES, {**payload, PARTIAL_PAYLOAD_KEY: event}, scope)
        # Not asked for, or expired: what an earlier event told stays.
        return Sent(Stream.ISSUES, payload, scope, _KEPT if self.events else {})


def _home(raw: dict[str, Any], scope: str) -> str:
    """The project an issue is in: one that was merged may be in another than the one that was asked."""
    return str(member(raw, "project").get("id") or scope)


def _refused(stream: Stream, scope: str, extras: Mapping[str, Extra]) -> list[Gap]:
    """One gap for all that this token may not see; what is not there is no gap, because events expire."""
    refused = [extra.denied for extra in extras.values() if extra.denied]
    if not refused:
        return []
    what = "latest event" if stream is Stream.ISSUES else "comments"
    detail = f"The {what} of {len(refused)} issues: {refused[0].detail}"
    return [Gap(stream, scope, refused[0].trouble, detail, refused[0].status)]
