"""What an import from a tracker would do, without doing it: sample issues, problems, and how many there are."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shared.connectors._protocol import Connector, Page, Part, PartKind, Scope
from shared.domain.errors import SourceError, Trouble
from shared.domain.rejection import Problem
from shared.domain.stream import Stream
from shared.domain.sync import Fate, decide
from shared.services.accept_sync import require_open, require_usable
from shared.services.choose_scopes import choose_scopes
from shared.services.manage_connections import existing
from shared.services.normalize_page import Normal, complete, normalize_page
from shared.services.open_connector import Connectors, heeding_limits
from shared.store.connections import StoredConnection
from shared.store.database import Database
from shared.store.streams import Writer

_SAMPLE = 20
_ENOUGH = 10
# A page may show less than it holds: GitHub's lists issues and pull requests together, ServiceNow's leaves gaps.
_MOST_PAGES = 6
_MOST_SCOPES = 5
_SECONDS = 20.0


class SampleIssue(BaseModel):
    """An issue as it would be stored, shortened."""

    external_id: str
    key: str | None
    title: str
    type: str | None
    status: str | None
    status_category: str
    assignee: str | None
    project: str | None
    created_at: datetime | None
    updated_at: datetime | None
    would_be: str = Field(description="created, updated, unchanged or stale", examples=["created"])


class SourcePreview(BaseModel):
    """What an import would bring. Only the sample was read; totals are the source's own."""

    model_config = ConfigDict(frozen=True)

    import_source: str
    source: str
    sample: list[SampleIssue]
    counts: dict[str, int] = Field(description="Of the sample", examples=[{"created": 18, "unchanged": 2}])
    problems: list[Problem] = Field(description="Of the sample's records that would be rejected")
    issues: int | None = Field(
        description="About how many the scopes looked at have, as of the last test, where the source tells"
    )
    estimated_calls: int | None
    estimated_seconds: float | None
    scopes: list[str]
    requests: int = Field(description="Calls this preview took")


async def preview_source(
    database: Database, made: Connectors, slug: str, scopes: tuple[str, ...] = ()
) -> SourcePreview:
    """Read one small page and compare it with what is stored. Raises SourceError as the source does."""
    async with database.connection() as connection:
        stored = await existing(connection, slug)
    require_usable(stored)
    require_open(stored, now=datetime.now(UTC))
    connector = await made.untracked(stored)
    try:
        async with heeding_limits(database, stored), asyncio.timeout(_SECONDS):
            found, _ = await connector.scopes()
            chosen = choose_scopes(found, scopes)
            pages = await _read(connector, chosen[:_MOST_SCOPES])
    except TimeoutError as error:
        raise SourceError(Trouble.TIMEOUT, f"The source did not answer within {_SECONDS:.0f} s") from error
    return await _describe(database, stored, connector, chosen, pages)


async def _read(connector: Connector, scopes: list[Scope]) -> list[Page]:
    """A page of the first scope; more of it, and of the next ones, only while the sample is too small."""
    pages: list[Page] = []
    read = 0
    for scope in scopes:
        part = Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=scope.id)
        position: Mapping[str, Any] | None = None
        while True:
            page = await connector.fetch(part, position, most=_SAMPLE)
            pages.append(page)
            read += sum(sent.stream is Stream.ISSUES for sent in page.records)
            if read >= _ENOUGH or len(pages) >= _MOST_PAGES:
                return pages
            if page.next is None:
                break
            position = page.next
    return pages


async def _describe(
    database: Database, stored: StoredConnection, connector: Connector, scopes: list[Scope], pages: list[Page]
) -> SourcePreview:
    sample: list[SampleIssue] = []
    problems: list[Problem] = []
    for page in pages:
        normalized = await normalize_page(connector.normalize, page, first_row=1)
        # A walk repeats the last row of a page on the next one.
        seen = {each.external_id for each in sample}
        issues = {i: issue for i, issue in normalized.records.get(Stream.ISSUES, {}).items() if i not in seen}
        sample += await _compare(database, stored, page, issues)
        problems += [problem for _, refused in normalized.refused for problem in refused.problems]
    test: dict[str, Any] = stored.test or {}
    by_scope: dict[str, int] = test.get("issues_by_scope") or {}
    narrowed = len(scopes) < test.get("scopes_total", len(scopes))
    issues = sum(by_scope.get(scope.name, 0) for scope in scopes) if narrowed and by_scope else test.get("issues")
    calls = connector.estimate_calls(issues) if issues is not None else None
    return SourcePreview(
        import_source=stored.slug,
        source=stored.source,
        sample=sample[:_SAMPLE],
        counts={fate.value: n for fate in Fate if (n := sum(each.would_be == fate.value for each in sample))},
        problems=problems[:_SAMPLE],
        issues=issues,
        estimated_calls=calls,
        estimated_seconds=None if narrowed else test.get("estimated_seconds"),
        scopes=[scope.name for scope in scopes][:200],
        requests=connector.requests,
    )


async def _compare(
    database: Database, stored: StoredConnection, page: Page, issues: Mapping[str, Normal]
) -> list[SampleIssue]:
    ids = list(issues)
    keys = sorted({key for issue in issues.values() if issue.partial for key in issue.partial.payload_keys})
    async with database.connection() as connection:
        # Nothing is written, so there is no job to name.
        writer = Writer(connection, source=stored.slug, job_id=stored.id, read_at=page.read_at)
        held = await writer.find_held(Stream.ISSUES, ids)
        kept = await writer.find_kept(ids, (), keys) if keys else {}
    return [
        SampleIssue(
            **{name: issue.row.values[name] for name in SampleIssue.model_fields if name in issue.row.values},
            created_at=issue.row.values["source_created_at"],
            updated_at=issue.updated,
            would_be=decide(
                held.get(each),
                content_hash=complete(issue, kept.get(each)).content_hash,
                updated=issue.updated,
                read_at=page.read_at,
                authoritative=False,
            ),
        )
        for each, issue in issues.items()
    ]
