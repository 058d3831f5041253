"""What importing a file would do, without doing it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, BinaryIO
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.job import Counts, Duplicates, ImportOptions
from shared.domain.rejection import Problem
from shared.files.detect import HEAD_BYTES
from shared.files.examine import Examined, Normalized, check_format, examine
from shared.files.index import HASH_BYTES
from shared.files.reader import BrokenRecord, NormalizedRecord
from shared.services.job_status import LayoutSummary, summarize_layout
from shared.store.database import Connection, Database
from shared.store.records import MIRRORS, Mirror, copy_lines
from shared.telemetry import span

# An answer is due within three seconds for the largest file; the rest is for sending it and for slow machines.
REWRITING_SECONDS = 0.5
NORMALIZING_SECONDS = 0.5
_ASKING_SECONDS = 0.4
_SLICE = 5_000
_MOST_COMPARED = 5_000
_SAMPLES = 20
# More than are shown, because some of them may be broken.
_SAMPLED = 60
_EXAMPLES = 3
# Stands in where a record names its job; nothing of it is stored.
_NO_JOB = UUID(int=0)


class ProblemExample(Problem):
    """One problem and the row it is in."""

    row_number: int = Field(examples=[17])


class ProblemKind(BaseModel):
    """Problems of one kind among the rows that were looked at."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(examples=["invalid_date"])
    count: int = Field(examples=[12])
    examples: list[ProblemExample]


class Preview(BaseModel):
    """What an import would do."""

    model_config = ConfigDict(frozen=True)

    exact: bool = Field(description="False: the counts are estimated from the first `rows_examined` rows")
    rows_examined: int
    counts: Counts
    layout: LayoutSummary
    sample: list[dict[str, Any]] = Field(description="The first records as they would be stored")
    problems: list[ProblemKind] = Field(description="Most frequent first, among the rows that were looked at")
    warnings: list[str]
    seconds: float


async def preview_file(
    database: Database,
    file: BinaryIO,
    *,
    name: str,
    size: int,
    import_source: str,
    options: ImportOptions,
    expected: str | None,
) -> Preview:
    """Detect, normalize and compare with the database; stores nothing. Raises FileRefusedError."""
    started = time.monotonic()
    with span("preview_file", bytes=size):
        found = await asyncio.to_thread(
            examine, file, name=name, size=size, options=options, expected=expected, seconds=REWRITING_SECONDS
        )
        async with database.transaction() as connection:
            answers = await _ask(connection, found, MIRRORS[options.kind], import_source)
        wanted = answers.to_normalize(found, options)
        normalized = await asyncio.to_thread(found.normalize, wanted, NORMALIZING_SECONDS)
        async with database.transaction() as connection:
            judged = await _judge(connection, found, MIRRORS[options.kind], import_source, answers, normalized)
        remarks = found.reader.remarks.sentences(found.layout.other_encoding)
        sampled = await asyncio.to_thread(found.normalize, range(min(_SAMPLED, len(found.rows))), NORMALIZING_SECONDS)
    exact = found.share == 1 and answers.complete and normalized.seen == len(wanted) and judged.complete
    return Preview(
        exact=exact,
        rows_examined=len(found.rows) - len(wanted) + normalized.seen,
        counts=_count(found, answers, normalized, judged, wanted=len(wanted), options=options),
        layout=summarize_layout(found.layout.model_dump(mode="json")),
        sample=_first(found, normalized.good + sampled.good),
        problems=_problem_kinds(normalized.broken),
        warnings=[*found.warnings, *remarks],
        seconds=round(time.monotonic() - started, 3),
    )


def _first(found: Examined, good: list[tuple[int, NormalizedRecord]]) -> list[dict[str, Any]]:
    """Some records to look at: the first, and where those are broken what else was read."""
    by_position = dict(good)
    return [found.reader.sample(by_position[position].values) for position in sorted(by_position)[:_SAMPLES]]


async def assert_format(file: BinaryIO, *, name: str, size: int, options: ImportOptions, expected: str | None) -> None:
    """Raise FileRefusedError unless the beginning of the file can be read, as the `expected` format if there is one."""

    def check() -> None:
        check_format(file.read(HEAD_BYTES), name=name, size=size, options=options, expected=expected)
        file.seek(0)

    await asyncio.to_thread(check)


@dataclass
class _Answers:
    """What the database says about records that have an id and lose to no other: positions."""

    new: set[int] = field(default_factory=set[int])
    changed: set[int] = field(default_factory=set[int])
    same: int = 0
    unasked: set[int] = field(default_factory=set[int])

    @property
    def complete(self) -> bool:
        return not self.unasked

    def to_normalize(self, found: Examined, options: ImportOptions) -> list[int]:
        """Positions of the records whose fate hangs on what is in them; the import passes over the others as well."""
        unread = {position for position, identity in enumerate(found.ids) if identity is None}
        changed = set[int]() if options.duplicates is Duplicates.SKIP else self.changed
        return sorted(self.new | changed | found.losers | unread)


@dataclass
class _Judged:
    fates: dict[str, int] = field(default_factory=dict[str, int])
    complete: bool = True


async def _ask(connection: Connection, found: Examined, mirror: Mirror, import_source: str) -> _Answers:
    """Which records are new, held in another form or the same, as far as the time allows."""
    askable = [p for p, identity in enumerate(found.ids) if identity is not None and p not in found.losers]
    answers = _Answers()
    until = time.monotonic() + _ASKING_SECONDS
    for start in range(0, len(askable), _SLICE):
        part = askable[start : start + _SLICE]
        if start and time.monotonic() > until:
            answers.unasked = set(askable[start:])
            break
        hashes = b"".join(found.hashes[p * HASH_BYTES : (p + 1) * HASH_BYTES] for p in part)
        ids = [found.ids[position] or "" for position in part]
        differences = await mirror.find_differences(connection, import_source, ids, hashes)
        answers.new.update(part[position] for position in differences.new)
        answers.changed.update(part[position] for position in differences.changed)
        answers.same += len(part) - len(differences.new) - len(differences.changed)
    return answers


async def _judge(
    connection: Connection,
    found: Examined,
    mirror: Mirror,
    import_source: str,
    answers: _Answers,
    normalized: Normalized,
) -> _Judged:
    """What would become of known records in another form: updated, older than what is there, or the same after all."""
    changed = [(position, record) for position, record in normalized.good if position in answers.changed]
    compared = changed[:_MOST_COMPARED]
    if not compared:
        return _Judged()
    hashes = [bytes(found.hashes[p * HASH_BYTES : (p + 1) * HASH_BYTES]) for p, _ in compared]
    lines = copy_lines([record for _, record in compared], hashes, _NO_JOB, import_source)
    merged = await mirror.assess(connection, lines)
    return _Judged(_spread(merged._asdict(), len(changed)), complete=len(compared) == len(changed))


def _count(
    found: Examined,
    answers: _Answers,
    normalized: Normalized,
    judged: _Judged,
    *,
    wanted: int,
    options: ImportOptions,
) -> Counts:
    """Fates of all rows; those nobody looked at share the fates of the others."""
    good = [position for position, _ in normalized.good]
    fates = {
        "created": sum(position in answers.new for position in good),
        "duplicates": sum(position in found.losers for position in good),
        "rejected": len(normalized.broken),
        **judged.fates,
    }
    fates = _spread(fates, wanted)
    if options.duplicates is Duplicates.SKIP:
        fates["skipped"] = answers.same + len(answers.changed)
    else:
        fates["unchanged"] = fates.get("unchanged", 0) + answers.same
    rows = round(len(found.rows) / found.share)
    return Counts(rows=rows, **_spread(fates, rows))


def _spread(shares: dict[str, int], total: int) -> dict[str, int]:
    """Stretch shares to a total; what rounding leaves goes to the largest."""
    whole = sum(shares.values())
    if not whole or whole == total:
        return shares
    stretched = {name: round(share * total / whole) for name, share in shares.items()}
    largest = max(stretched, key=lambda name: stretched[name])
    stretched[largest] += total - sum(stretched.values())
    return stretched


def _problem_kinds(broken: list[BrokenRecord]) -> list[ProblemKind]:
    by_code: dict[str, list[ProblemExample]] = {}
    for record in broken:
        for problem in record.problems:
            by_code.setdefault(problem.code, []).append(ProblemExample(row_number=record.row, **problem.model_dump()))
    kinds = [ProblemKind(code=code, count=len(found), examples=found[:_EXAMPLES]) for code, found in by_code.items()]
    return sorted(kinds, key=lambda kind: -kind.count)
