"""The simulated trackers by source, and how to connect to each: what the demo, benchmarks and tests share."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.trackers.service import Tracker
from local.trackers.world import World, seeded

# The projects of a world; for ServiceNow they are task tables in this order.
PROJECTS = ("HARBOR", "PETREL", "DOCKSIDE", "LANTERN")
_TABLES = ("incident", "problem", "change_request", "sc_task")


@dataclass(frozen=True)
class Known:
    """How a connection to a simulated tracker is registered."""

    source: str
    settings: Mapping[str, Any]
    credentials: Mapping[str, str]


def sources() -> list[str]:
    """Sources that have a simulated tracker."""
    import local.trackers as package
    from shared.connectors import connectors

    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(modules & set(connectors()))


def tracker_of(source: str, world: World) -> Tracker:
    """The tracker of a source, not running yet."""
    module = importlib.import_module(f"local.trackers.{source}")
    made = next(
        each
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Tracker) and each.__module__ == module.__name__
    )
    return made(world)


def seeded_tracker(source: str, issues: int, *, projects: tuple[str, ...] = PROJECTS[:2]) -> Tracker:
    """A tracker with so many issues."""
    return tracker_of(source, seeded(issues, projects=projects))


def connection_to(tracker: Tracker) -> Known:
    """Settings and credentials that fit a tracker."""
    token = {"token": tracker.token}
    projects = len(tracker.world.projects)
    match tracker.source:
        case "jira":
            return Known("jira", {}, {"email": "ada@tidewater.example", **token})
        case "servicenow":
            login = {"username": "tributary.reader", "password": tracker.token}
            return Known("servicenow", {"tables": list(_TABLES[:projects])}, login)
        case "sentry":
            return Known("sentry", {"organization": "tidewater"}, token)
        case source:
            return Known(source, {}, token)
