"""A webhook through the public door: its bytes arrive as they were signed, and what it names is read again."""

import httpx
import orjson

from tests.e2e.test_syncs import Told, connect, sync, trackers
from tests.support.local_stack import eventually
from tests.support.outside import Outside
from tests.support.webhooks import SECRET, call_of, payload_of

__all__ = ["trackers"]  # a fixture


def test_a_signed_delivery_mends_what_is_stored_without_a_sync(outside: Outside, trackers: dict[str, Told]) -> None:
    connect(outside, trackers["jira"], "e2e-hooked")
    changed = outside.api.patch("/integrations/e2e-hooked", json={"credentials": {"webhook_secret": SECRET}})
    assert changed.status_code == 200, changed.text
    assert outside.ended(sync(outside, "e2e-hooked", mode="full"), 120)["state"] == "completed"
    issue = outside.rows(
        """
        update issues set title = 'Stale', content_hash = '\\x00'
         where ctid = (select ctid from issues where import_source = 'e2e-hooked' limit 1)
        returning external_id, key
        """
    )[0]
    # Spaces and an accent: whoever reads and writes the body anew changes its bytes.
    payload = {**payload_of("jira", **issue, scope=None), "ünï": "é"}
    call = call_of("jira", orjson.dumps(payload, option=orjson.OPT_INDENT_2), delivery="e2e-1")
    address = next(
        each["address"] for each in outside.api.get("/webhooks/status").json()["items"] if each["slug"] == "e2e-hooked"
    )

    answer = httpx.post(address, content=call.body, headers=dict(call.headers), timeout=30)
    forged = httpx.post(address, content=call.body + b" ", headers=dict(call.headers), timeout=30)

    assert (answer.status_code, forged.status_code) == (202, 401), answer.text

    def mended() -> None:
        (delivery,) = outside.api.get("/webhooks/e2e-hooked/deliveries").json()["items"]
        assert delivery["status"] == "done", delivery
        (row,) = outside.rows(
            "select title from issues where import_source = 'e2e-hooked' and external_id = %s", issue["external_id"]
        )
        assert row["title"] != "Stale"

    # The end of its job settles it at the next look, which is the timer's at the latest.
    eventually(mended, 90)
