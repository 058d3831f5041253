"""`make demo`: import every file of examples/ through the public API, then sync five simulated trackers.

The state is kept in .local/, so a second run finds nothing new. Uses a stack that is running already, else its own.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psycopg
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from local.demo_trackers import show_trackers
from local.environment import read_env_file
from local.processes import StackError, stop_on_signals
from local.stack import ROOT, AlreadyRunningError, Stack, options_from_environment

DATA_FILES = {".csv", ".json", ".jsonl", ".ndjson", ".tsv", ".txt"}
ENDED = {"completed", "failed", "cancelled"}
# The API allows 100 requests a minute: one call tells of all jobs.
POLL_SECONDS = 1.0
SHOWN_REJECTIONS = 3
DEADLINE_SECONDS = 600
WIDTH_WITHOUT_TERMINAL = 120

Status = Mapping[str, Any]
_NEXT = """
All of it is kept in .local/: run the demo again and files and full syncs are unchanged.
`make run` keeps the stack up, to import files of your own or connect a tracker: see README.md and docs/sync.md.
"""


class Api:
    """The public API, as any client with a key sees it."""

    def __init__(self, url: str, key: str, console: Console) -> None:
        self._client = httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=120)
        self._console = console

    def start_import(self, file: Path) -> str:
        """Send a file and return its job id; the label is the file's name, as examples/README.md says."""
        form = {"import_source": file.stem} | ({"kind": "projects"} if file.stem == "projects" else {})
        with file.open("rb") as content:
            body = self.call("POST", "/api/import", files={"file": (file.name, content)}, data=form)
        return body["job_id"]

    def statuses(self, jobs: Iterable[str]) -> dict[str, Status]:
        """How these jobs stand, if they are among the latest."""
        wanted = set(jobs)
        latest = self.call("GET", "/api/import/history", params={"limit": 100})["items"]
        return {status["job_id"]: status for status in latest if status["job_id"] in wanted}

    def rejections(self, job: str) -> list[Mapping[str, Any]]:
        return self.call("GET", f"/api/import/{job}/rejections", params={"limit": SHOWN_REJECTIONS})["items"]

    def call(self, method: str, path: str, **content: Any) -> Any:
        while True:
            response = self._client.request(method, path, **content)
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            seconds = float(response.headers.get("Retry-After", "1"))
            self._console.print(f"The API allows 100 requests a minute: going on in {seconds:.0f} s", style="dim")
            time.sleep(seconds)
            for _, file in content.get("files", {}).values():
                file.seek(0)
        if response.is_error:
            raise StackError(f"{method} {path} was answered with {response.status_code}: {response.text[:500]}")
        return response.json() if response.content else None


def main() -> int:
    """Import, show, and say whether every file ended as a completed job."""
    stop_on_signals()
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_WITHOUT_TERMINAL)
    try:
        with _running_stack(console) as settings:
            return _show(console, settings, options_from_environment().state_dir)
    except StackError as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130


@contextmanager
def _running_stack(console: Console) -> Iterator[Mapping[str, str]]:
    """Settings of a stack: of one that runs already, else of one that lives as long as the demo."""
    options = replace(options_from_environment(), quiet=True)
    with ExitStack() as running:
        try:
            with console.status("Starting PostgreSQL, Azurite and the function host"):
                stack = running.enter_context(Stack(options))
            console.print(f"Tributary is ready at {stack.url}", highlight=False)
        except AlreadyRunningError:
            console.print("Using the stack that is running already", highlight=False)
        yield read_env_file(options.state_dir / "env")


def _show(console: Console, settings: Mapping[str, str], state_dir: Path) -> int:
    api = Api(settings["TRIBUTARY_URL"], settings["TRIBUTARY_API_KEY"], console)
    files = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in DATA_FILES)
    results = _import(console, api, files)
    console.print(_summary(results))
    _show_problems(console, api, results)
    console.print(_stored_rows(settings["DATABASE_URL"], [file.stem for file in files]))
    synced = show_trackers(console, api, state_dir)
    console.print(_NEXT, highlight=False, markup=False)
    return 0 if synced and all(status["state"] == "completed" for status in results.values()) else 1


def _import(console: Console, api: Api, files: list[Path]) -> dict[Path, Status]:
    """Send all files, then follow their jobs until the last has ended."""
    results: dict[Path, Status] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {file: progress.add_task(file.name, total=100, note="") for file in files}
        jobs = {file: api.start_import(file) for file in files}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while waiting := [file for file in files if file not in results]:
            if time.monotonic() > deadline:
                raise StackError(f"Job {jobs[waiting[0]]} of {waiting[0].name} did not end in time")
            time.sleep(POLL_SECONDS)
            statuses = api.statuses(jobs[file] for file in waiting)
            for file in waiting:
                if status := statuses.get(jobs[file]):
                    _advance(progress, bars[file], status)
                    if status["state"] in ENDED:
                        results[file] = status
    return results


def _advance(progress: Progress, bar: TaskID, status: Status) -> None:
    ended = status["state"] in ENDED
    left = None if ended else status.get("estimated_seconds_left")
    note = f"{status['state']}, {status['counts']['rows']:,} rows" + (f", {left:.0f} s left" if left else "")
    progress.update(bar, completed=100 if ended else status.get("percent") or 0, note=note)
    if ended:
        progress.stop_task(bar)


def _summary(results: Mapping[Path, Status]) -> Table:
    table = Table(title="What came in", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("state", no_wrap=True)
    for column in ("created", "updated", "unchanged", "rejected", "seconds", "rows/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for file, status in sorted(results.items()):
        counts = status["counts"]
        numbers = [f"{counts[name]:,}" for name in ("created", "updated", "unchanged", "rejected")]
        seconds, speed = status.get("seconds") or 0, status.get("rows_per_second") or 0
        color = "green" if status["state"] == "completed" else "red"
        table.add_row(file.name, f"[{color}]{status['state']}[/]", *numbers, f"{seconds:.2f}", f"{speed:,.0f}")
    return table


def _show_problems(console: Console, api: Api, results: Mapping[Path, Status]) -> None:
    for file, status in sorted(results.items()):
        if error := status.get("error"):
            console.print(f"\n{file.name}: {error}", highlight=False, markup=False)
        rejected = status["counts"]["rejected"]
        if not rejected:
            continue
        console.print(f"\n{file.name}: {rejected} rows were rejected and kept, for example", highlight=False)
        for item in api.rejections(status["job_id"]):
            reasons = "; ".join(f"{problem['reason']} ({problem['hint']})" for problem in item["problems"])
            console.print(f"  row {item['row_number']}: {reasons}", highlight=False, markup=False)


def _stored_rows(database_url: str, import_sources: list[str]) -> Table:
    """One issue of each file, read back with SQL."""
    columns = ("import_source", "key", "title", "status", "severity", "assignee")
    table = Table(
        *columns, title="Some rows of the table issues", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    query = """
        select distinct on (import_source) import_source, coalesce(key, external_id), title, status, severity, assignee
          from issues
         where import_source = any(%s)
         order by import_source, source_updated_at desc nulls last
    """
    with psycopg.connect(database_url) as connection:
        for row in connection.execute(query, [import_sources]):
            table.add_row(*("" if value is None else str(value)[:60] for value in row))
    return table


if __name__ == "__main__":
    sys.exit(main())
