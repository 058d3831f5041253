"""`python -m local.trackers --state DIR`: run every simulated tracker in one process until it is told to stop.

`DIR/trackers.json` tells how to connect to each, when all of them serve.
"""

import argparse
import asyncio
import gc
import json
import signal
from collections.abc import Sequence
from pathlib import Path

from local.trackers._control import churn, edit_some
from local.trackers._hooks import OWNER_TOKEN
from local.trackers.known import PROJECTS, connection_to, seeded_tracker, sources
from local.trackers.service import Tracker

DAY_SECONDS = 24 * 3_600
# Source, address and secret of a webhook.
HookAsked = tuple[str, str, str]


async def serve(state: Path, trackers: list[Tracker], port: int, hooks: Sequence[HookAsked] = ()) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    for number, tracker in enumerate(trackers):
        await tracker.start(port + number if port else 0)
    told = [
        {
            "source": (known := connection_to(tracker)).source,
            "base_url": tracker.url,
            "settings": dict(known.settings),
            "credentials": dict(known.credentials),
            "owner_token": OWNER_TOKEN,
        }
        for tracker in trackers
    ]
    for source, url, secret in hooks:
        for tracker in trackers:
            if tracker.source == source:
                tracker.hooks.register(url, secret)
    path = state / "trackers.json"
    path.with_suffix(".tmp").write_text(json.dumps(told, indent=2), encoding="utf-8")
    path.with_suffix(".tmp").rename(path)
    for tracker in trackers:
        print(f"{tracker.source:<12}{tracker.url}")
    print(f"How to connect to each stands in {path}. Ctrl-C stops them.", flush=True)
    stopped = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stopped.set)
    await stopped.wait()
    for tracker in trackers:
        await tracker.stop()


def mark_of(day: int) -> str:
    """What the title of the day's last edit ends with."""
    return f"day {day}"


def live(tracker: Tracker, days: int, changes: int) -> Tracker:
    """Let days pass as `/_control` calls do, so that a tracker that is started again is where it was."""
    for day in range(1, days + 1):
        churn(tracker.world, changes)
        tracker.world.advance(DAY_SECONDS)
        edit_some(tracker.world, 1, mark_of(day))
    return tracker


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.trackers", description=__doc__)
    parser.add_argument("--state", type=Path, required=True, help="folder for trackers.json")
    parser.add_argument("--issues", type=int, default=200, help="issues of each tracker, up to 100,000")
    parser.add_argument("--sources", nargs="*", choices=sources(), help="only these")
    parser.add_argument("--projects", type=int, default=2, choices=range(1, len(PROJECTS) + 1))
    parser.add_argument("--latency", type=float, default=0.0, help="seconds each answer takes longer")
    parser.add_argument(
        "--port", type=int, default=0, help="of the first; the others follow. By default any that are free"
    )
    parser.add_argument("--days", type=int, default=0, help="days of changes since the start")
    parser.add_argument("--changes", type=int, default=10, help="changes a day")
    parser.add_argument(
        "--hook",
        nargs=3,
        action="append",
        default=[],
        metavar=("SOURCE", "URL", "SECRET"),
        help="tell this address on loopback of all that changes; again for more",
    )
    parser.add_argument("--hook-retry", type=float, help="seconds between attempts, where there are some")
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    projects = PROJECTS[: arguments.projects]
    made = [
        live(seeded_tracker(source, arguments.issues, projects=projects), arguments.days, arguments.changes)
        for source in arguments.sources or sources()
    ]
    for tracker in made:
        tracker.latency = arguments.latency
        tracker.hooks.set_pace(retry_seconds=arguments.hook_retry)
    # What is made stays; the collector need not look through it again and again.
    gc.freeze()
    asyncio.run(serve(arguments.state, made, arguments.port, arguments.hook))


if __name__ == "__main__":
    main()
