"""Seeded CSV files of issues that look like a large tracker's export, for the benchmarks.

Two files are written in one pass: a base file, and one in which 5 % of the rows were edited later. Beside the good
rows 1 % are broken and 2 % repeat an identity that occurred before, so that the last valid row has to win over the
whole file.
"""
# ruff: noqa: SIM905 - long lists of words read better as text

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

SEED = 20_250_301
# A new number makes every cached file obsolete.
VERSION = 1
CHANGED_SHARE, BROKEN_SHARE, DUPLICATE_SHARE, TRACE_SHARE = 0.05, 0.01, 0.02, 0.15

COLUMNS = (
    "external_id",
    "key",
    "title",
    "description",
    "type",
    "status",
    "priority",
    "assignee",
    "reporter",
    "labels",
    "components",
    "project",
    "sprint",
    "environment",
    "stack_trace",
    "url",
    "story_points",
    "source_created_at",
    "source_updated_at",
    "customer",
)
_ID, _TITLE, _STATUS, _PRIORITY = 0, 2, 5, 6
_POINTS, _UPDATED = COLUMNS.index("story_points"), COLUMNS.index("source_updated_at")

_SUBJECTS = (
    "checkout page|invoice export|login form|search index|order queue|price list|delivery note|stock counter|"
    "audit trail|mail gateway|report scheduler|address book|payment terminal|label printer|customer portal|"
    "data feed|session store|tax table|voucher service|warehouse scanner|route planner|contract archive|"
    "rights matrix|time sheet"
).split("|")
_FAULTS = (
    "loses the last entry|shows yesterday's numbers|is slow on Monday mornings|rounds down instead of up|"
    "answers twice|does not wake up after a deployment|ignores the time zone|drops accents|times out under load|"
    "accepts empty values|cannot be opened on a tablet|keeps a lock too long|sorts by the wrong column|"
    "forgets the filter|fails without a word|doubles every second line|is blank for new customers|rejects valid codes"
).split("|")
_WHERE = (
    "in the night shift|after the update|for three of our largest customers|on the second attempt|"
    "in the test system too|since the move to the new region|whenever two people edit|with more than 500 lines|"
    "only over the public address|when the cache is cold|if the name contains an apostrophe|near the end of the month"
).split("|")
_SENTENCES = (
    'The message says "{n} entries could not be read", which is not true.',
    "Seen {n} times in the last week, never before.",
    "We restarted it at {n}:15, after that it was quiet for an hour; then it began again.",
    "Expected: the list is complete.\nFound: {n} rows are missing, always the newest.",
    'Steps:\n1. open the overview\n2. choose more than {n} lines\n3. press "Save"',
    "A colleague in Łódź has the same with číslo {n} – so it is not the machine.",
    "According to the log the request took {n} ms, most of it waiting for a lock.",
    "The workaround is to export, sort by hand and import again; that costs us about {n} minutes a day.",
    "Customers call about it, so please do not wait for the next release.",
    "I have attached a screenshot, although it shows only the empty page; number {n}.",
    "It may have to do with the change of last Thursday, see the thread about the {n} retries.",
    "Would it be possible to show the reason, instead of code {n}?",
)
_TYPES = ("Bug", "Bug", "Bug", "Task", "Story", "Incident")
_STATUSES = ("Open", "Open", "In Progress", "In Review", "Done", "Closed", "Waiting for support")
_PRIORITIES = ("Critical", "High", "Medium", "Medium", "Low")
_FIRST = (
    "Amara Bruno Celeste Dario Elif Farid Greta Hiro Ilse Jonas Kaya Leif Mina Nils Oona Pavel Rosa Sami Tove".split()
)
_LAST = "Abela Brandt Costa Dahl Eriksen Farkas Gallo Haas Ito Jansen Kovač Lind Moreau Novak Okoye Sato".split()
_LABELS = "backend frontend customer regression performance data-loss ux security import export mobile".split()
_COMPONENTS = "API Billing Search Portal Scanner Reports Identity Mail".split()
_BROWSERS = ("Firefox 136", "Chrome 133", "Safari 18.3", "Edge 133")
_SYSTEMS = ("Windows 11", "Ubuntu 24.04", "macOS 15.3", "Android 14")
_FRAMES = (
    '  File "/srv/app/{m}/views.py", line {n}, in handle\n    return service.run(request)',
    '  File "/srv/app/{m}/service.py", line {n}, in run\n    result = [self.step(item) for item in items]',
    '  File "/srv/app/{m}/store.py", line {n}, in fetch\n    cursor.execute(query, parameters)',
    '  File "/srv/app/{m}/format.py", line {n}, in render\n    return template.format(**values)',
    '  File "/usr/lib/python3.12/concurrent/futures/thread.py", line {n}, in run\n    result = self.fn(*self.args)',
)
_ERRORS = ("KeyError: 'customer_{n}'", "TimeoutError: no answer within {n} s", "ValueError: invalid literal: '{n},5'")
_START = datetime(2023, 1, 1, tzinfo=UTC)

Row = list[str]


@dataclass(frozen=True)
class Facts:
    """What a correct import of the two files has to come to."""

    rows: int
    issues: int
    broken: int
    duplicates: int
    changed: int


@dataclass(frozen=True)
class Files:
    base: Path
    changed: Path
    facts: Facts


def generate(directory: Path, rows: int) -> Files:
    """Write both files, or find those of an earlier run with the same size and version."""
    directory.mkdir(parents=True, exist_ok=True)
    stem = f"issues-v{VERSION}-{rows}"
    base, changed, facts_file = (directory / f"{stem}{end}" for end in (".csv", "-changed.csv", ".json"))
    if not facts_file.exists():
        facts_file.write_text(json.dumps(asdict(_write(base, changed, rows))))
    return Files(base, changed, Facts(**json.loads(facts_file.read_text())))


def _write(base: Path, changed: Path, rows: int) -> Facts:
    valid: dict[str, int] = {}
    edited: dict[str, bool] = {}
    broken = 0
    with base.open("w", newline="", encoding="utf-8") as one, changed.open("w", newline="", encoding="utf-8") as two:
        first, second = csv.writer(one, lineterminator="\n"), csv.writer(two, lineterminator="\n")
        first.writerow(COLUMNS)
        second.writerow(COLUMNS)
        for row, later, is_broken in _rows(rows):
            first.writerow(row)
            second.writerow(later or row)
            if is_broken:
                broken += 1
                continue
            valid[row[_ID]] = valid.get(row[_ID], 0) + 1
            edited[row[_ID]] = later is not None
    return Facts(
        rows=rows,
        issues=len(valid),
        broken=broken,
        duplicates=sum(valid.values()) - len(valid),
        changed=sum(edited.values()),
    )


def _rows(count: int) -> Iterator[tuple[Row, Row | None, bool]]:
    """Yield each row, its edited version if it has one, and whether it is broken."""
    choice = random.Random(SEED)
    sentences = [text.format(n=number) for number in range(2, 400) for text in _SENTENCES]
    for number in range(count):
        row = _issue(choice, number, sentences)
        dice = choice.random()
        if dice < BROKEN_SHARE:
            _break(choice, row, number)
            yield row, None, True
            continue
        if dice < BROKEN_SHARE + DUPLICATE_SHARE and number:
            _identify(row, choice.randrange(number))
        later = _edit(choice, row) if choice.random() < CHANGED_SHARE else None
        yield row, later, False


def _issue(choice: random.Random, number: int, sentences: list[str]) -> Row:
    subject, fault = choice.choice(_SUBJECTS), choice.choice(_FAULTS)
    created = _START + timedelta(seconds=number * 37 % 63_000_000, milliseconds=choice.randrange(1000))
    updated = created + timedelta(seconds=choice.randrange(9_000_000))
    trace = _stack_trace(choice, subject) if choice.random() < TRACE_SHARE else ""
    environment = {"browser": choice.choice(_BROWSERS), "os": choice.choice(_SYSTEMS), "build": choice.randrange(9999)}
    row = [
        "",
        "",
        f"{subject.capitalize()} {fault} {choice.choice(_WHERE)}",
        _description(choice, sentences),
        choice.choice(_TYPES),
        choice.choice(_STATUSES),
        choice.choice(_PRIORITIES),
        _person(choice) if choice.random() < 0.8 else "",
        _person(choice),
        ",".join(choice.sample(_LABELS, choice.randrange(4))),
        choice.choice(_COMPONENTS),
        f"PRJ{number % 40}",
        f"Sprint {number % 60}" if choice.random() < 0.6 else "",
        json.dumps(environment) if choice.random() < 0.5 else "",
        trace,
        "",
        choice.choice(("", "1", "2", "3", "5", "8", "0.5")),
        _stamp(created),
        _stamp(updated),
        f"Customer {number * 7919 % 5003}",
    ]
    _identify(row, number)
    return row


def _identify(row: Row, number: int) -> None:
    row[_ID], row[1] = str(10_000_000 + number), f"PRJ{number % 40}-{number}"
    row[COLUMNS.index("url")] = f"https://tracker.example/browse/{row[1]}"


def _description(choice: random.Random, sentences: list[str]) -> str:
    wanted = choice.randrange(200, 720)
    text = ""
    while len(text) < wanted:
        text += choice.choice(sentences) + choice.choice((" ", " ", "\n", "\n\n"))
    return text[:800].rstrip()


def _stack_trace(choice: random.Random, subject: str) -> str:
    module = subject.replace(" ", "_")
    frames = [
        choice.choice(_FRAMES).format(m=module, n=choice.randrange(9, 900)) for _ in range(choice.randrange(4, 12))
    ]
    error = choice.choice(_ERRORS).format(n=choice.randrange(1000))
    return "\n".join(["Traceback (most recent call last):", *frames, error])


def _person(choice: random.Random) -> str:
    return f"{choice.choice(_FIRST)} {choice.choice(_LAST)}"


def _stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _break(choice: random.Random, row: Row, number: int) -> None:
    """Break a row in a way that COPY into text columns survives, so that plain SQL can take part."""
    kind = choice.randrange(5)
    if kind == 0:
        row[_TITLE] = ""
    elif kind == 1:
        row[_ID] = ""
    elif kind == 2:
        row[_UPDATED] = "2024-02-31T10:00:00.000+00:00"
    elif kind == 3:
        row[_POINTS] = "many"
    else:
        # A broken repetition must not displace the good row that came before it.
        _identify(row, choice.randrange(number + 1))
        row[_TITLE] = ""


def _edit(choice: random.Random, row: Row) -> Row:
    later = row.copy()
    later[_STATUS] = choice.choice([status for status in _STATUSES if status != row[_STATUS]])
    later[_PRIORITY] = choice.choice(_PRIORITIES)
    moment = datetime.fromisoformat(row[_UPDATED]) + timedelta(seconds=choice.randrange(60, 900_000))
    later[_UPDATED] = _stamp(moment)
    return later
