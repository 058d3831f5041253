"""What every source module has to keep, whoever wrote it."""

from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from local.trackers.known import connection_to, tracker_of
from local.trackers.world import seeded
from shared.connectors import connectors
from shared.connectors._protocol import Connector, Part, PartKind, Walk
from shared.domain.errors import SourceError, Trouble
from shared.domain.stream import MODELS, Record, Stream

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted(connectors())
every_source = pytest.mark.parametrize("name", SOURCES)


def made(name: str, client: httpx.AsyncClient, url: str, settings: Any, credentials: Any) -> Connector:
    found = connectors()[name]
    return found(client, url, found.Settings.model_validate(settings), found.Credentials.model_validate(credentials))


def test_the_supported_trackers_are_these() -> None:
    assert SOURCES == ["github", "gitlab", "jira", "sentry", "servicenow"]


@every_source
def test_a_source_says_what_it_is_and_has_a_guide(name: str) -> None:
    found = connectors()[name]

    assert (found.source, bool(found.title)) == (name, True)
    assert Stream.ISSUES in found.streams
    assert found.streams[Stream.ISSUES].census, "nobody would find deletions"
    for traits in found.streams.values():
        assert (traits.walk is Walk.CHILD) == (traits.parent is not None)
    guide = (ROOT / "docs" / "sources" / f"{name}.md").read_text(encoding="utf-8")
    for trouble in (Trouble.AUTH_INVALID, Trouble.PERMISSION_DENIED, Trouble.RATE_LIMIT):
        assert trouble in guide, f"the guide does not explain {trouble}"


@every_source
def test_forms_have_labels_and_secrets_are_marked(name: str) -> None:
    found = connectors()[name]

    for form in (found.Settings, found.Credentials):
        for field, about in form.model_fields.items():
            assert about.title, f"{form.__name__}.{field} has no title"
    secrets = [
        field
        for field, about in found.Credentials.model_fields.items()
        if SecretStr in {about.annotation, *get_args(about.annotation)}
    ]
    assert secrets, "a source without a secret"
    with pytest.raises(ValidationError):
        found.Settings.model_validate({"no_such_setting": 1})


@every_source
async def test_every_stream_is_walked_to_its_end_and_makes_sense(name: str) -> None:
    world = seeded(12, projects=("HARBOR",))
    async with tracker_of(name, world) as tracker, httpx.AsyncClient() as client:
        known = connection_to(tracker)
        connector = made(name, client, tracker.url, known.settings, known.credentials)
        assert (await connector.check()).account
        assert await connector.now() == world.now.replace(microsecond=0)
        scopes, gaps = await connector.scopes()
        assert (len(scopes), gaps) == (1, [])
        for stream, traits in connector.streams.items():
            if traits.walk is Walk.CHILD:
                continue
            kind = PartKind.SNAPSHOT if traits.walk is Walk.SNAPSHOT else PartKind.WINDOW
            part = Part(kind=kind, stream=stream, scope=scopes[0].id if traits.per_scope else "*")
            for record in await records_of(connector, part):
                assert isinstance(record, tuple(MODELS.values()))
        issues = await records_of(connector, Part(kind=PartKind.WINDOW, stream=Stream.ISSUES, scope=scopes[0].id))

    assert len({issue.external_id for issue in issues if isinstance(issue, MODELS[Stream.ISSUES])}) == 12


async def records_of(connector: Connector, part: Part) -> list[Record]:
    records: list[Record] = []
    position = None
    for _ in range(50):
        page = await connector.fetch(part, position)
        records += [connector.normalize(sent) for sent in page.records]
        if page.next is None:
            return records
        position = page.next
    raise AssertionError(f"the walk over {part.stream} does not end")


@every_source
async def test_a_wrong_token_is_told_as_such(name: str) -> None:
    async with tracker_of(name, seeded(2)) as tracker, httpx.AsyncClient() as client:
        known = connection_to(tracker)
        wrong = {
            field: "wrong" if field in {"token", "password"} else value for field, value in known.credentials.items()
        }
        connector = made(name, client, tracker.url, known.settings, wrong)

        with pytest.raises(SourceError) as refused:
            await connector.check()

    assert refused.value.trouble is Trouble.AUTH_INVALID
    assert "wrong" not in refused.value.detail


@every_source
async def test_an_address_where_nobody_listens_is_a_glitch(name: str) -> None:
    async with tracker_of(name, seeded(1)) as tracker:
        known, url = connection_to(tracker), tracker.url
    async with httpx.AsyncClient() as client:
        connector = made(name, client, url, known.settings, known.credentials)

        with pytest.raises(SourceError) as refused:
            await connector.check()

    assert refused.value.trouble is Trouble.NETWORK_GLITCH
