"""`make bench-sync`: a first sync of 20,000 issues behind 50 ms latency, then one after 1 % changed, per source.

The tracker is simulated in a process of its own; the sync runs through the API, by the real orchestrator, in the
function host. A sync by another connection and without latency comes first, so that code is warm and the tracker has
its rows at hand, as a database would. No code can be faster than the latency bound: every request takes its latency,
`concurrency` of them at once, and what has to be read one after the other takes its turn. The ratio to that bound is
what this measures. The host has a worker process for each of two processors, as an instance of two cores should have;
the tracker counts that no more requests are on their way at once than the connection allows.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

# Makes `python benchmarks/sync.py` and `python -m benchmarks.sync` the same.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measure import Cost, measured, megabytes  # noqa: E402 - needs the path above
from local.processes import Child, start_child, wait_until  # noqa: E402
from local.stack import Stack, StackOptions  # noqa: E402
from local.trackers.known import sources  # noqa: E402
from tests.support.ports import free_ports  # noqa: E402

ENDED = {"completed", "failed", "cancelled"}
TARGET = 1.3
CHANGED_SHARE = 0.01
WORKERS = min(2, os.cpu_count() or 1)
SERVE_SECONDS = 300
POLL_SECONDS = 0.5
DEADLINE_SECONDS = 1_800
DAY_SECONDS = 24 * 3_600


@dataclass(frozen=True)
class Measured:
    """One sync."""

    cost: Cost
    requests: int
    longest_chain: int
    records: int
    status: Mapping[str, Any]

    def bound(self, latency: float, concurrency: int) -> float:
        """No sync with so many requests can take less time."""
        return max(self.requests / concurrency, self.longest_chain) * latency


class Bench:
    """A running stack with one tracker."""

    def __init__(self, stack: Stack, tracker: Child, told: Mapping[str, Any]) -> None:
        self._told = told
        self._url = stack.settings["DATABASE_URL"]
        self._api = httpx.Client(
            base_url=f"{stack.url}/api",
            headers={"X-API-Key": stack.settings["TRIBUTARY_BOOTSTRAP_KEY"]},
            timeout=120,
        )
        self._pids = {"tracker": tracker.process.pid} | {
            name: child.process.pid for child in stack.children if (name := child.name) in {"host", "postgres"}
        }
        self.slug = ""

    def connect(self, purpose: str) -> int:
        """Register a connection and test it; its concurrency. It is the one that syncs from now on."""
        self.slug = f"{purpose}-{self._told['source']}"
        place = {name: self._told[name] for name in ("source", "base_url", "settings", "credentials")}
        self._call("POST", "/integrations", json={"slug": self.slug, **place})
        tested = self._call("POST", f"/integrations/{self.slug}/test")
        if not tested["passed"]:
            raise SystemExit(f"{self.slug} did not pass its test: {tested['error']}")
        self._call("POST", f"/integrations/{self.slug}/pause")
        forms = self._call("GET", "/integrations/sources")["items"]
        form = next(each for each in forms if each["source"] == self._told["source"])
        return form["settings"]["properties"]["concurrency"]["default"]

    def sync(self, **body: Any) -> Measured:
        """Run a sync to its end and measure it from asking to knowing."""
        with measured(self._url, self._pids, memory_of="host") as cost:
            job = self._call("POST", f"/integrations/{self.slug}/sync", json=body)["job_id"]
            deadline = time.monotonic() + DEADLINE_SECONDS
            while (status := self._call("GET", f"/import/status/{job}"))["state"] not in ENDED:
                if time.monotonic() > deadline:
                    raise SystemExit(f"The sync of {self.slug} did not end in time")
                time.sleep(POLL_SECONDS)
        # The client polls, seldom enough to cost nothing; what counts is when the sync had ended.
        cost.seconds = status["seconds"]
        if status["state"] != "completed":
            raise SystemExit(f"The sync of {self.slug} {status['state']}: {status['error']}")
        chains = self._rows("select max(requests) as longest from sync_parts where job_id = %s", job)
        return Measured(cost, status["sync"]["requests"], chains[0]["longest"], status["counts"]["rows"], status)

    def control(self, action: str, **values: Any) -> None:
        """Steer the tracker."""
        httpx.post(f"{self._told['base_url']}/_control/{action}", json=values, timeout=120).raise_for_status()

    def most_at_once(self) -> int:
        """How many requests were on their way to the tracker at once, since this was asked last."""
        return httpx.get(f"{self._told['base_url']}/_control/calls", timeout=120).json()["most_at_once"]

    def stored_issues(self) -> int:
        """How many issues are there."""
        statement = "select count(*) as issues from issues where import_source = %s and deleted_at is null"
        return self._rows(statement, self.slug)[0]["issues"]

    def _rows(self, statement: str, *values: object) -> list[dict[str, Any]]:
        with psycopg.connect(self._url, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def _call(self, method: str, path: str, **content: Any) -> Any:
        answer = self._api.request(method, path, **content)
        if answer.is_error:
            raise SystemExit(f"{method} {path} was answered with {answer.status_code}: {answer.text[:500]}")
        return answer.json()


@contextmanager
def running(source: str, issues: int) -> Iterator[Bench]:
    """A fresh stack and a tracker with so many issues."""
    directory = Path(tempfile.mkdtemp(prefix="tributary-bench-"))
    host, postgres, blobs, queues = free_ports(4)
    options = StackOptions(
        state_dir=directory / "stack",
        port=host,
        postgres_port=postgres,
        blob_port=blobs,
        queue_port=queues,
        quiet=True,
        extra_settings={"REQUESTS_PER_MINUTE": "1000000", "FUNCTIONS_WORKER_PROCESS_COUNT": str(WORKERS)},
    )
    command = [sys.executable, "-m", "local.trackers", "--state", str(directory), "--sources", source]
    command += ["--issues", str(issues), "--projects", "4"]
    tracker = start_child("tracker", command, state_dir=directory, log_file=directory / "tracker.log", cwd=ROOT)
    told = directory / "trackers.json"
    try:
        wait_until(told.exists, tracker, SERVE_SECONDS)
        with Stack(options) as stack:
            yield Bench(stack, tracker, json.loads(told.read_text(encoding="utf-8"))[0])
    finally:
        tracker.stop()
        shutil.rmtree(directory, ignore_errors=True)


def measure(source: str, issues: int, latency: float) -> str:
    """Both syncs of a source; prints what they cost and returns the line that sums it up."""
    with running(source, issues) as bench:
        bench.connect("warm-up")
        bench.sync(mode="full")
        bench.control("latency", seconds=latency)
        concurrency = bench.connect("bench")
        allowed = f"{concurrency} requests at once, {WORKERS} worker processes"
        print(f"\n{source}: {issues:,} issues, {latency * 1000:.0f} ms, {allowed}")
        bench.most_at_once()
        first = bench.sync(mode="full")
        if (most := bench.most_at_once()) > concurrency:
            raise SystemExit(f"{source}: {most} requests were on their way at once, {concurrency} are allowed")
        _print("first sync", first, first.bound(latency, concurrency))
        stored = bench.stored_issues()
        if stored != issues:
            raise SystemExit(f"{source}: {stored} issues are stored, {issues} exist")
        print(f"  {first.requests * 1000 / issues:.0f} calls for 1,000 issues with what belongs to them")
        bench.control("advance", seconds=DAY_SECONDS)
        bench.control("edit", issues=int(issues * CHANGED_SHARE))
        bench.control("advance", seconds=DAY_SECONDS)
        second = bench.sync(mode="incremental", streams=["issues"])
        _print("incremental", second, second.bound(latency, concurrency))
        ratio = first.cost.seconds / first.bound(latency, concurrency)
        rss = megabytes(max(first.cost.rss_bytes, second.cost.rss_bytes))
    return (
        f"SYNC source={source} bound_ratio={ratio:.2f} requests={first.requests} "
        f"incremental_requests={second.requests} rss_mb={rss}"
    )


def _print(name: str, sync: Measured, bound: float) -> None:
    seconds = sync.cost.seconds
    cpu = ", ".join(f"{part} {spent:.1f}" for part, spent in sync.cost.cpu.items() if part != "client")
    print(
        f"  {name}: {seconds:.1f} s, bound {bound:.1f} s, {sync.requests} requests, {sync.records:,} records, "
        f"{sync.records / seconds:,.0f} records/s; CPU seconds: {cpu}; host {megabytes(sync.cost.rss_bytes)} MB"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-sync", description=__doc__)
    parser.add_argument("--issues", type=int, default=20_000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds each answer takes")
    parser.add_argument("--sources", nargs="*", choices=sources(), default=sources())
    arguments = parser.parse_args()
    lines = [measure(source, arguments.issues, arguments.latency) for source in arguments.sources]
    print(f"\nTarget: bound_ratio at most {TARGET}")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
