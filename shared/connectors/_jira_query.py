"""JQL that is safe to walk with: epoch milliseconds instead of dates, keys instead of offsets, and quoted names.

https://support.atlassian.com/jira-software-cloud/docs/jql-fields/
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from shared.connectors._jira_settings import JiraSettings

_MINUTE_SECONDS = 60


@dataclass(frozen=True)
class Mark:
    """The issue a walk has come to. The id stays when an issue moves or its project is renamed; the key does not."""

    id: str
    key: str

    @property
    def number(self) -> int:
        """What issues of one project are sorted by."""
        return number_of(self.key)

    @property
    def project_key(self) -> str:
        """The part of the key before the number."""
        return self.key.rpartition("-")[0]

    @classmethod
    def of(cls, position: Mapping[str, Any] | None) -> Self | None:
        """The mark a position holds."""
        return cls(id=str(position["id"]), key=str(position["key"])) if position else None

    @classmethod
    def at(cls, issue: Mapping[str, Any]) -> Self:
        """The mark at an issue as Jira sends it."""
        return cls(id=str(issue["id"]), key=str(issue["key"]))

    def position(self) -> dict[str, Any]:
        """The mark as JSON."""
        return {"id": self.id, "key": self.key}

    def below(self, most: int, *, beneath: int = 0) -> list[str]:
        """Keys of up to `most` numbers under this one, after leaving out `beneath` of them."""
        top = self.number - beneath
        return [f"{self.project_key}-{number}" for number in range(top - 1, max(top - 1 - most, 0), -1)]


def number_of(key: str) -> int:
    """The number in a key such as OPS-12."""
    return int(key.rpartition("-")[2])


def quoted(text: str) -> str:
    """Text as one JQL value, whatever is in it.

    https://support.atlassian.com/jira-software-cloud/docs/jql-reserved-characters-and-words/
    """
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def names(values: Iterable[str]) -> str:
    """A JQL list."""
    return f"({', '.join(map(quoted, values))})"


def issue_names(values: Iterable[str]) -> str:
    """A JQL list of issues; a number in quotes would be taken for a key."""
    return f"({', '.join(each if each.isdecimal() else quoted(each) for each in values)})"


def of_project(scope: str) -> str:
    """The clause for a project by id or key."""
    return f"project = {scope if scope.isdecimal() else quoted(scope)}"


def of_settings(settings: JiraSettings) -> list[str]:
    """The clauses every walk of a connection has."""
    clauses = [f"({settings.jql})"] if settings.jql else []
    if settings.tracked_accounts:
        accounts = names(settings.tracked_accounts)
        clauses.append(f"(assignee in {accounts} OR reporter in {accounts})")
    return clauses


def walk(
    scope: str, filters: Sequence[str], *, since: datetime | None = None, mark: Mark | None = None, order: str = "ASC"
) -> str:
    """The query of the page that begins with `mark`.

    The mark itself is asked for again: as long as it leads the page, Jira has understood it as we mean it. Dates in JQL
    are minutes in the account's time zone; epoch milliseconds have no zone, and the minute is floored.
    https://support.atlassian.com/jira-software-cloud/docs/jql-fields/#Updated
    """
    clauses = [of_project(scope)]
    if since:
        clauses.append(f"updated >= {int(since.timestamp()) // _MINUTE_SECONDS * _MINUTE_SECONDS * 1_000}")
    if mark:
        clauses.append(f"issuekey >= {quoted(mark.key)}")
    return f"{' AND '.join([*clauses, *filters])} ORDER BY key {order}"
