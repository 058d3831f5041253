"""`make bench`: a large file through Tributary's API against plain SQL, on the same server and in the same run.

Three phases (first load, identical reload, 5 % changed), each measured for both sides in turn with nothing else
running. After each phase the two tables are compared; a ratio counts only if both did the same work.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Makes `python benchmarks/files.py` and `python -m benchmarks.files` the same.
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import issues_csv, plain_sql, same_work, tributary  # noqa: E402 - needs the path above
from benchmarks.measure import Cost, measured, megabytes, settle  # noqa: E402

TARGETS = {"first": 1.0, "reload": 0.6, "changed": 0.75}
RSS_TARGET_MEGABYTES = 350
WARM_UP_ROWS = 20_000
TABLES = ("public.issues", "bench.issues")
PLAIN, TRIBUTARY = "plain SQL", "Tributary"


@dataclass(frozen=True)
class Phase:
    name: str
    path: Path
    expected: dict[str, int]


class Race:
    """Both sides, phase by phase, on one running stack."""

    def __init__(self, stack: tributary.Stack, *, rows: int, order: tuple[str, ...]) -> None:
        self._stack = stack
        self._rows = rows
        self._order = order
        self.costs: dict[tuple[str, str], Cost] = {}
        self.complaints: list[str] = []

    def warm_up(self, path: Path) -> None:
        """One small load for each, so that neither pays for cold code, new connections and a log without files."""
        plain_sql.prepare(self._stack.database_url)
        plain_sql.load(self._stack.database_url, path)
        tributary.load(self._stack, path)
        tributary.empty_tables(self._stack)
        plain_sql.prepare(self._stack.database_url)

    def run(self, phase: Phase) -> None:
        print(f"\n{phase.name}: {phase.path.name}, {megabytes(phase.path.stat().st_size)} MB")
        runners: dict[str, Callable[[Phase], str]] = {PLAIN: self._plain, TRIBUTARY: self._tributary}
        for side in self._order:
            settle(self._stack.database_url, *TABLES)
            note = runners[side](phase)
            self._print(side, self.costs[phase.name, side], note)
        found = same_work.compare(self._stack.database_url)
        print(f"  same work: {found.plain} and {found.tributary} rows, {found.different} of {found.sampled} differ")
        if not found.same:
            self.complaints.append(f"{phase.name}: the two tables differ")

    def ratio(self, phase: str) -> float:
        return self.costs[phase, TRIBUTARY].seconds / self.costs[phase, PLAIN].seconds

    @property
    def peak_megabytes(self) -> int:
        return megabytes(max(cost.rss_bytes for cost in self.costs.values()))

    def _plain(self, phase: Phase) -> str:
        pids = {"postgres": self._stack.pids["postgres"]}
        with measured(self._stack.database_url, pids) as cost:
            done = plain_sql.load(self._stack.database_url, phase.path)
        self.costs[phase.name, PLAIN] = cost
        return (
            f"copy {done.copy_seconds:.1f} s, upsert {done.seconds - done.copy_seconds:.1f} s, {done.written} written"
        )

    def _tributary(self, phase: Phase) -> str:
        with measured(self._stack.database_url, self._stack.pids, memory_of="host") as cost:
            done = tributary.load(self._stack, phase.path)
        self.costs[phase.name, TRIBUTARY] = cost
        counts = {name: count for name, count in done.counts.items() if count}
        if counts != {name: count for name, count in phase.expected.items() if count}:
            self.complaints.append(f"{phase.name}: counted {counts}, expected {phase.expected}")
        parts = f"upload {done.upload:.1f} s, wait {done.wait:.1f} s, plan {done.plan:.1f} s, load {done.load:.1f} s"
        return f"{parts}, " + ", ".join(f"{count} {name}" for name, count in counts.items() if name != "rows")

    def _print(self, side: str, cost: Cost, note: str) -> None:
        cpu = ", ".join(f"{name} {seconds:.1f}" for name, seconds in cost.cpu.items())
        memory = f", host at most {megabytes(cost.rss_bytes)} MB" if cost.rss_bytes else ""
        print(f"  {side:<10}{cost.seconds:8.2f} s {self._rows / cost.seconds:9,.0f} rows/s  {note}")
        print(f"  {'':<10}CPU s: {cpu}; WAL {megabytes(cost.wal_bytes)} MB{memory}", flush=True)


def main() -> int:
    """Run the race; the exit code is 1 if the two sides did not do the same work."""
    arguments = _parse()
    cache = ROOT / ".local" / "bench"
    print(f"Generating {arguments.rows} rows, or finding them in {cache}", flush=True)
    files = issues_csv.generate(cache, arguments.rows)
    warm_up = issues_csv.generate(cache, min(WARM_UP_ROWS, arguments.rows))
    with tributary.running_stack(cache / "state") as stack:
        order = (TRIBUTARY, PLAIN) if arguments.tributary_first else (PLAIN, TRIBUTARY)
        race = Race(stack, rows=files.facts.rows, order=order)
        race.warm_up(warm_up.base)
        for phase in _phases(files):
            race.run(phase)
    return _report(race)


def _phases(files: issues_csv.Files) -> list[Phase]:
    facts = files.facts
    common = {"rows": facts.rows, "duplicates": facts.duplicates, "rejected": facts.broken}
    changed = {"updated": facts.changed, "unchanged": facts.issues - facts.changed}
    return [
        Phase("first", files.base, {**common, "created": facts.issues}),
        Phase("reload", files.base, {**common, "unchanged": facts.issues}),
        Phase("changed", files.changed, {**common, **changed}),
    ]


def _report(race: Race) -> int:
    print()
    for name, target in TARGETS.items():
        print(f"  {name:<10}{race.ratio(name):6.2f} x plain SQL, target {target:.2f}")
    print(f"  {'memory':<10}{race.peak_megabytes:6} MB, target {RSS_TARGET_MEGABYTES}")
    print(f"  {'WAL':<10}{megabytes(race.costs['reload', TRIBUTARY].wal_bytes):6} MB for an identical reload")
    for complaint in race.complaints:
        print(f"  NOT THE SAME WORK: {complaint}")
    ratios = " ".join(f"{name}={race.ratio(name):.2f}" for name in TARGETS)
    print(f"RATIOS {ratios} rss_mb={race.peak_megabytes}")
    return 1 if race.complaints else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the generated file")
    parser.add_argument(
        "--tributary-first", action="store_true", help="measure Tributary before plain SQL in each phase"
    )
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tributary.BenchmarkError as error:
        sys.exit(f"error: {error}")
