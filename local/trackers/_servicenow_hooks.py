"""What a customer's Business Rule sends: the instance has no webhooks of its own, so the rule's author made them up.

The rule runs after insert, update and delete of task rows, says which row it was, and signs the time with the body.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson

from local.trackers._hooks import Delivery, Hooks, Message, hex_hmac
from local.trackers._servicenow_rows import number_of
from local.trackers._servicenow_tables import stamp, sys_id
from local.trackers.world import Issue

if TYPE_CHECKING:
    from local.trackers.servicenow import ServiceNowTracker


class ServiceNowHooks(Hooks):
    tracker: "ServiceNowTracker"

    def headers(self, delivery: Delivery, attempt: int) -> Mapping[str, str]:
        """With an id, because two updates of a second have the same body."""
        at = str(int(datetime.now(UTC).timestamp()))
        signed = hex_hmac(delivery.hook.secret, f"{at}.".encode() + delivery.message.body)
        return {
            "X-Tributary-Timestamp": at,
            "X-Tributary-Signature": f"sha256={signed}",
            "X-Tributary-Delivery": delivery.id,
        }

    def messages(self, before: Issue | None, after: Issue | None) -> Iterator[Message]:
        """Journal entries update their task; nothing else does without being seen in the row."""
        action = "insert" if before is None else "delete" if after is None else "update"
        issue = after or before
        table = self.tracker.table_of(issue) if issue else None
        if issue is None or table is None:
            return
        row = {"table": table, "sys_id": sys_id("issue", issue.id), "action": action}
        body = {**row, "number": number_of(table, issue), "sys_updated_on": stamp(issue.updated)}
        yield Message(event=action, body=orjson.dumps(body), project=issue.project, issue=issue)
