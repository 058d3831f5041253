"""The second half of `make demo`: connect the simulated trackers, preview, sync, change things, sync again, be told."""

import json
import secrets
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.processes import StackError, require_free_port, start_child, wait_until
from local.stack import ROOT, port_from_environment
from local.trackers.__main__ import DAY_SECONDS, mark_of

ISSUES = 300
CHANGES = 12
# The same every time, because addresses are part of what trackers send: others make every record a changed one.
PORT_SETTING = "TRACKERS_PORT"
FIRST_PORT = 7181
TRACKERS = 5
ENDED = {"completed", "failed", "cancelled"}
POLL_SECONDS = 1.0
TOLD_SECONDS = 30
# The trackers' addresses are gone when the demo ends, however it ends: the clock must not call them.
ONCE_A_YEAR = "0 0 1 1 *"
START_SECONDS = 60
DEADLINE_SECONDS = 300

Told = Mapping[str, Any]
Status = Mapping[str, Any]


class Calls(Protocol):
    """The public API; errors are raised, limits waited for."""

    def call(self, method: str, path: str, **content: Any) -> Any: ...

    def statuses(self, jobs: Iterable[str]) -> dict[str, Status]: ...


def show_trackers(console: Console, api: Calls, state_dir: Path) -> bool:
    """Sync every tracker twice and say what came; False if a sync did not complete."""
    with _running_trackers(console, state_dir) as trackers:
        hooks = {slug_of(told): _connect(api, told) for told in trackers}
        console.print(_previews(api, trackers))
        first = _sync(console, api, trackers, "Full sync", {"mode": "full"})
        for told in trackers:
            _control(told, "churn", changes=CHANGES)
            _control(told, "advance", seconds=DAY_SECONDS)
        _days_file(state_dir).write_text(str(_days(state_dir) + 1), encoding="utf-8")
        title = f"A day and {CHANGES} changes in each later: incremental sync, and a census for what is gone"
        second = _sync(console, api, trackers, title, {"mode": "incremental", "census": True})
        console.print(_summary(first, second))
        console.print(_proof(api, trackers))
        console.print(_pushed(api, trackers, hooks, mark_of(_days(state_dir))))
    failed = [status for status in [*first.values(), *second.values()] if status["state"] != "completed"]
    for status in failed:
        console.print(f"{status['import_source']} {status['state']}: {status['error']}", style="red", markup=False)
    return not failed


def slug_of(told: Told) -> str:
    """The connection's slug in the demo."""
    return f"demo-{told['source']}"


@contextmanager
def _running_trackers(console: Console, state_dir: Path) -> Iterator[list[Told]]:
    port = port_from_environment(PORT_SETTING, FIRST_PORT)
    for offset in range(TRACKERS):
        require_free_port(port + offset, "a simulated tracker", PORT_SETTING)
    told = state_dir / "trackers.json"
    told.unlink(missing_ok=True)
    command = [sys.executable, "-m", "local.trackers", "--state", str(state_dir), "--issues", str(ISSUES)]
    # Where the demo before this one left them.
    command += ["--days", str(_days(state_dir)), "--changes", str(CHANGES), "--port", str(port)]
    with console.status("Starting the simulated trackers"):
        child = start_child(
            "trackers", command, state_dir=state_dir, log_file=state_dir / "logs" / "trackers.log", cwd=ROOT
        )
        wait_until(told.exists, child, START_SECONDS)
    try:
        yield json.loads(told.read_text(encoding="utf-8"))
    finally:
        child.stop()


def _days_file(state_dir: Path) -> Path:
    return state_dir / "trackers-days"


def _days(state_dir: Path) -> int:
    """How many days earlier demos let pass."""
    file = _days_file(state_dir)
    return int(file.read_text(encoding="utf-8")) if file.exists() else 0


def _connect(api: Calls, told: Told) -> str:
    """Register the connection, or give that of an earlier run the new address, and test it; its webhook's secret."""
    slug = slug_of(told)
    known = {each["slug"] for each in api.call("GET", "/api/integrations?limit=200")["items"]}
    secret = secrets.token_urlsafe(32)
    place = {name: told[name] for name in ("base_url", "settings")}
    place["credentials"] = {**told["credentials"], "webhook_secret": secret}
    if slug in known:
        api.call("PATCH", f"/api/integrations/{slug}", json=place)
        # Deliveries to a paused connection wait until it is resumed.
        api.call("POST", f"/api/integrations/{slug}/resume")
    else:
        api.call("POST", "/api/integrations", json={"slug": slug, "source": told["source"], **place})
    api.call("PUT", f"/api/integrations/{slug}/schedule", json={"cron": ONCE_A_YEAR})
    tested = api.call("POST", f"/api/integrations/{slug}/test")
    if not tested["passed"]:
        raise StackError(f"The connection {slug} did not pass its test: {tested['error']}")
    return secret


def _previews(api: Calls, trackers: list[Told]) -> Table:
    columns = ("connection", "issues there", "calls to come", "key", "title", "status", "assignee")
    table = _table("What previews show", *columns)
    for told in trackers:
        seen = api.call("POST", f"/api/import/{told['source']}/preview", json={"connection": slug_of(told)})
        total, calls = seen["issues"], seen["estimated_calls"]
        for index, issue in enumerate(seen["sample"][:2]):
            head = [slug_of(told), _or_untold(total), _or_untold(calls)] if not index else ["", "", ""]
            table.add_row(*head, *(str(issue[name] or "")[:40] for name in ("key", "title", "status", "assignee")))
    return table


def _or_untold(number: int | None) -> str:
    return "not told" if number is None else f"{number:,}"


def _sync(console: Console, api: Calls, trackers: list[Told], title: str, body: Mapping[str, Any]) -> dict[str, Status]:
    """Sync all connections, follow them to their ends."""
    results: dict[str, Status] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    console.print(f"\n{title}", style="bold", highlight=False)
    with Progress(*columns, console=console) as progress:
        slugs = [slug_of(told) for told in trackers]
        bars = {slug: progress.add_task(slug, total=100, note="") for slug in slugs}
        jobs = {slug: api.call("POST", f"/api/integrations/{slug}/sync", json=body)["job_id"] for slug in slugs}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while waiting := [slug for slug in slugs if slug not in results]:
            if time.monotonic() > deadline:
                raise StackError(f"The sync of {waiting[0]} did not end in time")
            time.sleep(POLL_SECONDS)
            statuses = api.statuses(jobs[slug] for slug in waiting)
            for slug in waiting:
                if (status := statuses.get(jobs[slug])) is None:
                    continue
                note = f"{status['state']}, {status['counts']['rows']:,} records, {status['sync']['requests']} calls"
                ended = status["state"] in ENDED
                progress.update(bars[slug], completed=100 if ended else status["percent"], note=note)
                if ended:
                    results[slug] = status
                    progress.stop_task(bars[slug])
    return results


def _summary(first: Mapping[str, Status], second: Mapping[str, Status]) -> Table:
    names = ("created", "updated", "unchanged", "gone", "calls", "seconds")
    table = _table("What came over", "connection", "sync", *names)
    for slug in sorted(first):
        for title, status in (("full", first[slug]), ("later", second[slug])):
            gone = sum(of.get("deleted", 0) for of in status["sync"]["streams"].values())
            counts = [f"{status['counts'][name]:,}" for name in names[:3]]
            row = (*counts, str(gone), str(status["sync"]["requests"]), f"{status['seconds'] or 0:.1f}")
            table.add_row(slug if title == "full" else "", title, *row)
    return table


def _proof(api: Calls, trackers: list[Told]) -> Table:
    table = _table("Is anything missing?", "connection", "complete", "cursors", "holes", "cannot be read")
    for told in trackers:
        state = api.call("GET", f"/api/integrations/{slug_of(told)}/state")
        cursors = sum(each["cursor_at"] is not None for each in state["states"])
        gaps = "; ".join(gap["detail"] for gap in state["coverage_gaps"]) or "nothing"
        color = "green" if state["complete"] else "yellow"
        answer = "yes" if state["complete"] else "no"
        table.add_row(slug_of(told), f"[{color}]{answer}[/]", str(cursors), str(len(state["holes"])), gaps)
    return table


def _pushed(api: Calls, trackers: list[Told], secrets_of: Mapping[str, str], mark: str) -> Table:
    """An edit in each tracker, and how long it took to be here without anybody asking for it."""
    table = _table("One more edit in each, told by webhook", "connection", "event", "key", "title", "seconds")
    addresses = {each["slug"]: each["address"] for each in api.call("GET", "/api/webhooks/status")["items"]}
    for told in trackers:
        slug = slug_of(told)
        _control(told, "hook", url=addresses[slug], secret=secrets_of[slug])
        began = time.monotonic()
        _control(told, "edit", issues=1, mark=mark)
        issue = _arrived(api, slug, mark)
        took = time.monotonic() - began
        event = api.call("GET", f"/api/webhooks/{slug}/deliveries?limit=1")["items"][0]["event"]
        table.add_row(slug, event, str(issue["key"] or ""), str(issue["title"])[-48:], f"{took:.1f}")
    return table


def _arrived(api: Calls, slug: str, mark: str) -> Mapping[str, Any]:
    deadline = time.monotonic() + TOLD_SECONDS
    while time.monotonic() < deadline:
        found = api.call("GET", "/api/issues", params={"import_source": slug, "text": mark, "limit": 100})["items"]
        for issue in found:
            if issue["title"].endswith(f", {mark}"):
                return issue
        time.sleep(POLL_SECONDS / 4)
    raise StackError(f"The edit in the tracker of {slug} did not arrive; look at /api/webhooks/{slug}/deliveries")


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _control(told: Told, action: str, **values: Any) -> None:
    httpx.post(f"{told['base_url']}/_control/{action}", json=values, timeout=30).raise_for_status()
