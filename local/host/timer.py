"""Timers: NCRONTAB with six fields, seconds first, in UTC; one run of a timer at a time."""

import asyncio
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime

from azure_functions_runtime.bindings.datumdef import Datum
from croniter import croniter

from local.host.config import HostConfig
from local.host.worker import Function, FunctionFailedError
from local.host.workers import Workers

log = logging.getLogger(__name__)


class TimerListener:
    """Runs one timer function when it is due."""

    def __init__(self, workers: Workers, function: Function, config: HostConfig) -> None:
        self._workers = workers
        self._function = function
        self._schedule = config.resolve(function.trigger["schedule"])
        self._run_on_startup = bool(function.trigger.get("runOnStartup"))
        self._last = datetime.now(UTC)
        self._running = asyncio.Lock()
        next_occurrence(self._schedule, self._last)  # a broken schedule stops the start, not a run hours later

    async def run(self) -> None:
        if self._run_on_startup:
            await self._fire_quietly()
        while True:
            now = datetime.now(UTC)
            await asyncio.sleep((next_occurrence(self._schedule, now) - now).total_seconds())
            await self._fire_quietly()

    async def fire(self, _input: str = "") -> None:
        """Run now; waits for a run in progress."""
        async with self._running:
            started = datetime.now(UTC)
            status = {
                "Last": self._last.isoformat(),
                "LastUpdated": started.isoformat(),
                "Next": next_occurrence(self._schedule, started).isoformat(),
            }
            self._last = started
            info = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": status, "IsPastDue": False}
            await self._workers.invoke(self._function, Datum(json.dumps(info), "json"))

    async def _fire_quietly(self) -> None:
        with suppress(FunctionFailedError):  # logged where it was raised; the next run is another chance
            await self.fire()


def next_occurrence(schedule: str, after: datetime) -> datetime:
    """When an NCRONTAB schedule is due next; five fields mean second 0, as the platform reads them."""
    fields = schedule.split()
    if len(fields) not in {5, 6}:
        raise ValueError(f"Timer schedule {schedule!r} needs six fields: second minute hour day month weekday")
    six = fields if len(fields) == 6 else ["0", *fields]
    return croniter(" ".join(six), after, second_at_beginning=True).get_next(datetime)
