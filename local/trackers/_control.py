"""What `/_control` calls make a tracker do, and what a working day does to it."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from local.trackers._hooks import HookFault
from local.trackers.world import Issue, World

if TYPE_CHECKING:
    from local.trackers.service import Tracker

Values = dict[str, Any]
_STATUSES = ("open", "in_progress", "done")


def churn(world: World, changes: int) -> None:
    """What a working day does to a tracker: edits, comments, new issues, and now and then a deletion."""
    pick = world.random
    for _ in range(changes):
        world.advance(pick.randrange(1, 30))
        existing = world.all_current()
        act = pick.random()
        if act < 0.2 or not existing:
            world.create(pick.choice(list(world.projects)))
        elif act < 0.6:
            issue = pick.choice(existing)
            world.edit(issue.id, status=pick.choice([each for each in _STATUSES if each != issue.status]))
        elif act < 0.9:
            world.comment(pick.choice(existing).id)
        else:
            world.delete(pick.choice(existing).id)


def steer(tracker: "Tracker", action: str, values: Values) -> Mapping[str, Any] | None:
    """Do what is asked and tell what came of it; None if there is no such action."""
    act = _ACTIONS.get(action)
    return None if act is None else act(tracker, values) or {}


def _advance(tracker: "Tracker", values: Values) -> None:
    tracker.world.advance(values["seconds"])


def _churn(tracker: "Tracker", values: Values) -> None:
    churn(tracker.world, values.get("changes", 10))


def _edit(tracker: "Tracker", values: Values) -> Values:
    return {"issues": [_told(each) for each in edit_some(tracker.world, **values)]}


def edit_some(world: World, issues: int, mark: str = "again") -> list[Issue]:
    """Edit so many issues, a second apart; their titles then end with the mark."""
    existing = world.all_current()
    chosen = world.random.sample(existing, min(issues, len(existing)))
    edited: list[Issue] = []
    for issue in chosen:
        world.advance(1)
        edited.append(world.edit(issue.id, title=f"{issue.title}, {mark}", body=f"{issue.body}\nSeen again.\n"))
    return edited


def _change(tracker: "Tracker", values: Values) -> Values:
    """One change, a second after the last: `what` it is, the `issue`, and whatever that takes."""
    world, what = tracker.world, values.pop("what")
    values = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    world.advance(1)
    if what == "create":
        return _told(world.create(values.pop("project", next(iter(world.projects))), **values))
    known: Mapping[str, Callable[..., Any]] = {
        "edit": world.edit,
        "comment": world.comment,
        "edit_comment": world.edit_comment,
        "delete_comment": world.delete_comment,
        "log_work": world.log_work,
        "delete_worklog": world.delete_worklog,
        "move": world.move,
        "delete": world.delete,
    }
    issue = values.pop("issue")
    before = world.current(issue)
    made = known[what](issue, **values)
    after = world.current(issue) or before
    return {**(_told(after) if after else {}), "made": getattr(made, "id", None)}


def _told(issue: Issue) -> Values:
    return {"issue": issue.id, "key": issue.key, "title": issue.title, "status": issue.status}


def _fault(tracker: "Tracker", values: Values) -> None:
    from local.trackers.service import Fault

    tracker.faults.append(Fault(**values))


def _renew(tracker: "Tracker", _values: Values) -> None:
    tracker.expired = False


def _latency(tracker: "Tracker", values: Values) -> None:
    tracker.latency = values["seconds"]


def _hook(tracker: "Tracker", values: Values) -> Values:
    return {"hook": tracker.hooks.register(values.pop("url"), values.pop("secret", ""), **values).id}


def _hook_fault(tracker: "Tracker", values: Values) -> None:
    tracker.hooks.faults.append(HookFault(**values))


def _hook_timing(tracker: "Tracker", values: Values) -> None:
    tracker.hooks.set_pace(**values)


_ACTIONS: Mapping[str, Callable[["Tracker", Values], Values | None]] = {
    "advance": _advance,
    "authorize": lambda tracker, _: dict(tracker.authorize()),
    "churn": _churn,
    "edit": _edit,
    "change": _change,
    "fault": _fault,
    "renew": _renew,
    "latency": _latency,
    "hook": _hook,
    "hook-fault": _hook_fault,
    "hook-timing": _hook_timing,
}
