"""What of an issue follows from its other fields: how far it is, how bad it is, where it belongs."""

import re

from shared.domain.issue import ISSUE_FIELDS, StatusCategory, is_known_status, severity_of, status_category

_ID, _KEY, _TYPE = ISSUE_FIELDS.index("external_id"), ISSUE_FIELDS.index("key"), ISSUE_FIELDS.index("type")
_STATUS, _CATEGORY = ISSUE_FIELDS.index("status"), ISSUE_FIELDS.index("status_category")
_PRIORITY, _SEVERITY = ISSUE_FIELDS.index("priority"), ISSUE_FIELDS.index("severity")
_PROJECT, _URL, _RESOLVED_AT = (
    ISSUE_FIELDS.index("project"),
    ISSUE_FIELDS.index("url"),
    ISSUE_FIELDS.index("resolved_at"),
)
_OPEN, _BUSY, _DONE = StatusCategory.OPEN, StatusCategory.IN_PROGRESS, StatusCategory.DONE
# The address of an issue names its repository: https://git.example/group/name/-/issues/7
_IN_REPOSITORY = re.compile(
    r"https?://[^/\s]+/(?P<name>[^\s?#]+?)/(?:-/)?(?:issues|pull|pulls|merge_requests|work_items)/\d+", re.IGNORECASE
)
_OF_REPOSITORIES = frozenset({"github", "gitlab"})
# States as ServiceNow stores them; exports of raw values have nothing else, and each table counts its own way.
# https://www.servicenow.com/docs/r/it-service-management/incident-management/c_IncidentManagementStateModel.html
_STATES = {
    "incident": {"1": _OPEN, **dict.fromkeys("2345", _BUSY), **dict.fromkeys("678", _DONE)},
    "problem": {
        **dict.fromkeys(("1", "101"), _OPEN),
        **dict.fromkeys(("2", "3", "102", "103", "104"), _BUSY),
        **dict.fromkeys(("4", "106", "107"), _DONE),
    },
    "change_request": {
        **dict.fromkeys(("-5", "-4", "-3", "-2", "1"), _OPEN),
        **dict.fromkeys(("-1", "0", "2"), _BUSY),
        **dict.fromkeys(("3", "4", "7"), _DONE),
    },
    "sn_customerservice_case": {"1": _OPEN, "10": _BUSY, "18": _BUSY, **dict.fromkeys("367", _DONE)},
    "task": {"-5": _OPEN, "1": _OPEN, "2": _BUSY, **dict.fromkeys("347", _DONE)},
}
_TABLES = {
    "INC": "incident",
    "PRB": "problem",
    "CHG": "change_request",
    "CS": "sn_customerservice_case",
    **dict.fromkeys(("RITM", "REQ", "SCTASK", "TASK", "CTASK", "PTASK"), "task"),
}
_PREFIX = re.compile(r"[A-Z]+")


class Derive:
    """Completes the values of a record in place; what a word folds into is remembered."""

    def __init__(self, source: str) -> None:
        self._numbered = source == "servicenow"
        self._in_repositories = source in _OF_REPOSITORIES
        self._categories: dict[str, StatusCategory] = {}
        self._severities: dict[str, str | None] = {}

    def __call__(self, values: list[str | None]) -> None:
        """Fill in status_category, severity, key and project."""
        status = values[_STATUS] or ""
        category = self._categories.get(status)
        if category is None:
            category = self._categories[status] = status_category(status)
        if values[_RESOLVED_AT] and (not status or not is_known_status(status)):
            category = _DONE
        if self._numbered and (state := _state(status, values)):
            category = state
        values[_CATEGORY] = category
        severity = values[_SEVERITY]
        if severity is not None:
            severity = self._fold(severity)
        if severity is None and (priority := values[_PRIORITY]) is not None:
            severity = self._fold(priority)
        values[_SEVERITY] = severity
        if values[_KEY] is None:
            values[_KEY] = values[_ID]
        if self._in_repositories and values[_PROJECT] is None:
            found = _IN_REPOSITORY.match(values[_URL] or "")
            values[_PROJECT] = found["name"] if found else None

    def _fold(self, word: str) -> str | None:
        if word not in self._severities:
            self._severities[word] = severity_of(word)
        return self._severities[word]


def _state(code: str, values: list[str | None]) -> StatusCategory | None:
    """What a number means in the table its record is of; a record that does not say is taken for an incident."""
    if not code.lstrip("-").isdigit():
        return None
    kind = (values[_TYPE] or "").strip().lower().replace(" ", "_")
    if kind not in _STATES:
        prefix = _PREFIX.match(values[_ID] or "")
        kind = _TABLES.get(prefix[0] if prefix else "", "incident")
    return _STATES[kind].get(code)
