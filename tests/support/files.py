"""CSV content for tests."""

import csv
import io
from collections.abc import Iterable, Sequence

HEADER = ("external_id", "title", "description", "status", "labels", "source_updated_at")


def issues_csv(rows: Iterable[Sequence[str]], header: Sequence[str] = HEADER) -> bytes:
    """A CSV in the predefined schema."""
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(header)
    writer.writerows(rows)
    return written.getvalue().encode()


def many_issues(count: int, *, title: str = "Pump stops") -> bytes:
    """Valid issues with quoted newlines, about 400 bytes each."""
    text = "It stops after a while.\nNobody knows why, " + "and it is loud, " * 18
    return issues_csv(
        (f"P-{n}", f"{title} {n}", text, "Open", "pump,noise", "2025-03-01T10:00:00Z") for n in range(count)
    )
