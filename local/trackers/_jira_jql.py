"""The part of JQL that clients need: comparisons, lists, AND, OR, brackets and ORDER BY, refused as Jira refuses."""

import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any
from zoneinfo import ZoneInfo

from local.trackers.world import Issue, World

_TOKEN = re.compile(
    r'\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|\'(?P<single>(?:[^\'\\]|\\.)*)\'|(?P<sign>>=|<=|!=|=|>|<|~|\(|\)|,)'
    r"|(?P<word>[^\s\"'()=<>!~,]+))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
    "!=": operator.ne,
}
_KEY_FIELDS = {"issuekey", "key", "issue", "id"}
_TEXTS: dict[str, Callable[[Issue], Sequence[str]]] = {
    "assignee": lambda issue: _account(issue.assignee),
    "reporter": lambda issue: _account(issue.reporter),
    "status": lambda issue: (STATUS[issue.status][0].lower(),),
    "issuetype": lambda issue: (issue.type.lower(),),
    "priority": lambda issue: (issue.priority.lower(),),
    "labels": lambda issue: [label.lower() for label in issue.labels],
}
# Fields that are searched for words, with "~" only.
_WORDS: dict[str, Callable[[Issue], str]] = {
    "summary": lambda issue: issue.title,
    "description": lambda issue: issue.body,
    "text": lambda issue: f"{issue.title} {issue.body}",
}
STATUS = {"open": ("To Do", "new"), "in_progress": ("In Progress", "indeterminate"), "done": ("Done", "done")}
Predicate = Callable[[Issue], bool]


class JqlError(Exception):
    """What Jira answers 400 with."""


@dataclass(frozen=True)
class Token:
    text: str
    is_text: bool = False


@dataclass(frozen=True)
class Clause:
    """A comparison as written."""

    name: str
    sign: str
    values: tuple[Token, ...]


@dataclass
class Query:
    """A parsed query: conjuncts, of which those about the key come by themselves."""

    project: str | None = None
    keys: list[tuple[str, Issue]] = field(default_factory=list[tuple[str, Issue]])
    rest: list[Predicate] = field(default_factory=list[Predicate])
    order: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    # The text without what is about the key, for a cache.
    signature: str = ""
    bounded: bool = False


@dataclass
class Jql:
    """Parses for one account of one world."""

    world: World
    time_zone: str = "UTC"
    strict: bool = True
    follow_moved: bool = False

    def parse(self, text: str) -> Query:
        """Raise JqlError for what Jira refuses."""
        where, _, order = _split_order(text)
        query = Query()
        self._tokens = _tokens(where)
        self._at = 0
        conjuncts = self._conjuncts() if self._tokens else []
        if self._at != len(self._tokens):
            raise JqlError(f"Error in the JQL Query: Expecting end of query but got '{self._tokens[self._at].text}'.")
        for conjunct in conjuncts:
            self._add(query, conjunct)
        query.bounded = bool(conjuncts)
        query.order = [_order(part) for part in order.split(",") if part.strip()]
        if len(query.order) > 7:
            raise JqlError("The maximum of 7 fields to sort by is exceeded.")
        query.signature = f"{re.sub(r'issuekey [<>]=? \S+', '', where)}|{query.order}"
        return query

    def _add(self, query: Query, conjunct: Clause | Predicate) -> None:
        if not isinstance(conjunct, Clause):
            query.rest.append(conjunct)
        elif conjunct.name == "project" and conjunct.sign == "=":
            query.project = self._project(conjunct.values[0].text)
        elif conjunct.name in _KEY_FIELDS and conjunct.sign in {">", ">=", "<", "<="}:
            query.keys.append((conjunct.sign, self._boundary(conjunct)))
        else:
            query.rest.append(self._predicate(conjunct))

    # Grammar

    def _conjuncts(self) -> list[Clause | Predicate]:
        first = self._and()
        others: list[list[Clause | Predicate]] = []
        while self._word("or"):
            others.append(self._and())
        if not others:
            return first
        sides = [_all([self._closed(each) for each in side]) for side in (first, *others)]
        return [lambda issue: any(side(issue) for side in sides)]

    def _and(self) -> list[Clause | Predicate]:
        found = self._term()
        while self._word("and"):
            found = [*found, *self._term()]
        return found

    def _term(self) -> list[Clause | Predicate]:
        if self._sign("("):
            inner = self._conjuncts()
            self._expect(")")
            return inner
        name = self._next().text.lower()
        if name not in {"project", "updated", "created", *_KEY_FIELDS, *_TEXTS, *_WORDS}:
            raise JqlError(f"Field '{name}' does not exist or you do not have permission to view it.")
        return [self._holds(name) if name in _WORDS else self._clause(name)]

    def _holds(self, name: str) -> Predicate:
        if not self._sign("~"):
            raise JqlError(f"The operator '{self._next().text}' is not supported by the '{name}' field.")
        words, told = self._next().text.lower().split(), _WORDS[name]
        return lambda issue: all(word in told(issue).lower() for word in words)

    def _clause(self, name: str) -> Clause:
        sign = self._next().text.lower()
        if sign == "not":
            self._expect("in")
            return Clause(name, "not in", self._list())
        if sign == "in":
            return Clause(name, "in", self._list())
        if sign == "is":
            negated = self._word("not")
            self._expect("empty")
            return Clause(name, "is not empty" if negated else "is empty", ())
        if sign not in _COMPARE:
            raise JqlError(f"Error in the JQL Query: Expecting operator but got '{sign}'.")
        return Clause(name, sign, (self._next(),))

    def _list(self) -> tuple[Token, ...]:
        self._expect("(")
        found = [self._next()]
        while self._sign(","):
            found.append(self._next())
        self._expect(")")
        return tuple(found)

    def _next(self) -> Token:
        if self._at >= len(self._tokens):
            raise JqlError("Error in the JQL Query: the query ends too early.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _word(self, word: str) -> bool:
        here = self._tokens[self._at] if self._at < len(self._tokens) else Token("")
        found = not here.is_text and here.text.lower() == word
        self._at += found
        return found

    _sign = _word

    def _expect(self, word: str) -> None:
        if not self._word(word):
            raise JqlError(f"Error in the JQL Query: Expecting '{word}'.")

    # Meaning

    def _closed(self, conjunct: Clause | Predicate) -> Predicate:
        if not isinstance(conjunct, Clause):
            return conjunct
        if conjunct.name == "project" and conjunct.sign == "=":
            key = self._project(conjunct.values[0].text)
            return lambda issue: issue.project == key
        if conjunct.name in _KEY_FIELDS and conjunct.sign in _COMPARE and conjunct.sign not in {"=", "!="}:
            sign, mark = _COMPARE[conjunct.sign], self._boundary(conjunct)
            return lambda issue: issue.project == mark.project and sign(issue.number, mark.number)
        return self._predicate(conjunct)

    def _predicate(self, clause: Clause) -> Predicate:
        if clause.sign in {"is empty", "is not empty"}:
            wanted = clause.sign == "is empty"
            if clause.name == "project":
                return lambda _issue: not wanted
            return lambda issue: (not _TEXTS[clause.name](issue)) == wanted
        negated = clause.sign in {"not in", "!="}
        if clause.name in {"updated", "created"}:
            moment, sign, name = self._moment(clause.values[0], clause.name), _COMPARE[clause.sign], clause.name
            return lambda issue: sign(getattr(issue, name), moment)
        if clause.name == "project":
            keys = {self._project(value.text) for value in clause.values}
            return lambda issue: (issue.project in keys) != negated
        if clause.name in _KEY_FIELDS:
            ids = {issue.id for value in clause.values if (issue := self._issue(value, clause.name))}
            return lambda issue: (issue.id in ids) != negated
        texts, read = {value.text.lower() for value in clause.values}, _TEXTS[clause.name]
        return lambda issue: bool(texts.intersection(read(issue))) != negated

    def _moment(self, value: Token, name: str) -> datetime:
        """Epoch milliseconds, or a minute in the account's time zone; both down to the minute."""
        if not value.is_text and value.text.isdecimal():
            return datetime.fromtimestamp(int(value.text) // 60_000 * 60, UTC)
        for form in ("%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d", "%Y/%m/%d"):
            try:
                return datetime.strptime(value.text, form).replace(tzinfo=ZoneInfo(self.time_zone))
            except ValueError:
                continue
        raise JqlError(
            f"Date value '{value.text}' for field '{name}' is invalid. Valid formats include: 'yyyy/MM/dd HH:mm', "
            "'yyyy-MM-dd HH:mm', 'yyyy/MM/dd', 'yyyy-MM-dd', or a period format e.g. '-5d', '4w 2d'."
        )

    def _project(self, text: str) -> str:
        for project in self.world.projects.values():
            if project.readable and text.upper() in {project.key, str(project.id)}:
                return project.key
        raise JqlError(f"The value '{text}' does not exist for the field 'project'.")

    def _boundary(self, clause: Clause) -> Issue:
        value = clause.values[0]
        issue = self._issue(value, clause.name)
        if issue is None:
            raise JqlError(f"An issue with key '{value.text}' does not exist for field '{clause.name}'.")
        if not value.text.isdecimal() and issue.key != value.text.upper() and not self.follow_moved:
            raise JqlError(f"Operator '{clause.sign}' cannot be applied to moved issue key '{value.text}'.")
        return issue

    def _issue(self, value: Token, name: str) -> Issue | None:
        found = find_issue(self.world, value.text if not (value.is_text and value.text.isdecimal()) else "")
        if found is None and self.strict:
            raise JqlError(f"An issue with key '{value.text}' does not exist for field '{name}'.")
        return found


def find_issue(world: World, text: str) -> Issue | None:
    """By id, key or former key, as it is; what the account may not see is not there."""
    if text.isdecimal():
        issue = world.current(int(text))
    else:
        project, _, number = text.upper().rpartition("-")
        issue = world.find(project, int(number)) if number.isdecimal() else None
        issue = issue or world.current(world.former_keys.get(text.upper(), 0))
    if issue is None or issue.hidden or not world.projects[issue.project].readable:
        return None
    return issue


def select(query: Query, candidates: Sequence[Issue]) -> Sequence[Issue]:
    """What of the sorted candidates the clauses about the key let through."""
    found = candidates
    for sign, mark in query.keys:
        if query.order[:1] == [("key", False)] and query.project == mark.project:
            cut = bisect_left if sign in {">=", "<"} else bisect_right
            at = cut(found, mark.number, key=lambda issue: issue.number)
            found = found[at:] if sign[0] == ">" else found[:at]
        else:
            compare = _COMPARE[sign]
            found = [i for i in found if i.project == mark.project and compare(i.number, mark.number)]
    return found


def arrange(query: Query, issues: Sequence[Issue]) -> list[Issue]:
    """Filter and sort, all but the key."""
    found = [issue for issue in issues if all(each(issue) for each in query.rest)]
    for name, falling in reversed(query.order or [("created", True)]):
        found.sort(key=_SORTS[name], reverse=falling)
    return found


_SORTS: dict[str, Callable[[Issue], Any]] = {
    "key": lambda issue: (issue.project, issue.number),
    "issuekey": lambda issue: (issue.project, issue.number),
    "updated": lambda issue: issue.updated,
    "created": lambda issue: issue.created,
}


def _split_order(text: str) -> tuple[str, str, str]:
    found = re.search(r"\border\s+by\b", text, re.IGNORECASE)
    return (text[: found.start()].strip(), found.group(), text[found.end() :]) if found else (text.strip(), "", "")


def _order(part: str) -> tuple[str, bool]:
    name, *direction = part.lower().split()
    if name not in _SORTS:
        raise JqlError(f"Not able to sort using field '{name}'.")
    return name, direction == ["desc"]


def _tokens(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise JqlError(f"Error in the JQL Query: The character '{text[at]}' is a reserved JQL character.")
        at = match.end()
        string = match["double"] if match["double"] is not None else match["single"]
        if string is not None:
            found.append(Token(re.sub(r"\\(.)", r"\1", string), is_text=True))
        else:
            found.append(Token(match["sign"] or match["word"]))
    return found


def _all(predicates: Sequence[Predicate]) -> Predicate:
    return lambda issue: reduce(lambda so_far, each: so_far and each(issue), predicates, True)


def _account(user: Any) -> Sequence[str]:
    return (account_id(user).lower(), user.login.lower()) if user else ()


def account_id(user: Any) -> str:
    """An account's id on Cloud."""
    return f"712020:{user.id:08d}-{user.login}"
