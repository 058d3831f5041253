"""`python -m local.trackers --state DIR`: run every simulated tracker in one process until it is told to stop.

`DIR/trackers.json` tells how to connect to each, when all of them serve.
"""

import argparse
import asyncio
import json
import signal
from pathlib import Path

from local.trackers.known import PROJECTS, connection_to, seeded_tracker, sources
from local.trackers.service import Tracker, churn

DAY_SECONDS = 24 * 3_600


async def serve(state: Path, trackers: list[Tracker], port: int) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    for number, tracker in enumerate(trackers):
        await tracker.start(port + number if port else 0)
    told = [
        {
            "source": (known := connection_to(tracker)).source,
            "base_url": tracker.url,
            "settings": dict(known.settings),
            "credentials": dict(known.credentials),
        }
        for tracker in trackers
    ]
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


def live(tracker: Tracker, days: int, changes: int) -> Tracker:
    """Let days pass as `/_control` calls do, so that a tracker that is started again is where it was."""
    for _ in range(days):
        churn(tracker.world, changes)
        tracker.world.advance(DAY_SECONDS)
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
    arguments = parser.parse_args()
    arguments.state.mkdir(parents=True, exist_ok=True)
    projects = PROJECTS[: arguments.projects]
    made = [
        live(seeded_tracker(source, arguments.issues, projects=projects), arguments.days, arguments.changes)
        for source in arguments.sources or sources()
    ]
    for tracker in made:
        tracker.latency = arguments.latency
    asyncio.run(serve(arguments.state, made, arguments.port))


if __name__ == "__main__":
    main()
