"""The simulated trackers as a process of their own, and what a test does to them."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from local.processes import start_child, wait_until
from local.stack import ROOT

Told = Mapping[str, Any]


@contextmanager
def running_trackers(state: Path, *, issues: int) -> Iterator[dict[str, Told]]:
    """Every simulated tracker by its source, and how to connect to it."""
    told = state / "trackers.json"
    child = start_child(
        "trackers",
        [sys.executable, "-m", "local.trackers", "--state", str(state), "--issues", str(issues)],
        state_dir=state,
        log_file=state / "trackers.log",
        cwd=ROOT,
    )
    try:
        wait_until(told.exists, child, 60)
        yield {each["source"]: each for each in json.loads(told.read_text(encoding="utf-8"))}
    finally:
        child.stop()


def control(told: Told, action: str, **values: Any) -> dict[str, Any]:
    """Steer a tracker."""
    answer = httpx.post(f"{told['base_url']}/_control/{action}", json=values, timeout=30)
    answer.raise_for_status()
    return answer.json()
