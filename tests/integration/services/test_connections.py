"""Connections and their secrets in the database: rotated, lost, defined by settings, changed by two people at once."""

import base64
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from local.trackers.known import connection_to, tracker_of
from local.trackers.world import seeded
from shared.blobs import Blobs
from shared.domain.errors import ConflictError, InvalidRequestError
from shared.domain.job import ImportRequest
from shared.security.sealing import KeyRing, Sealer
from shared.services.accept_import import reserve_upload
from shared.services.default_connections import define_defaults
from shared.services.manage_connections import (
    ConnectionChange,
    NewConnection,
    change_connection,
    create_connection,
    existing,
    remove_connection,
)
from shared.services.open_connector import Connectors, open_credentials
from shared.services.probe_connection import probe_connection
from shared.services.rotate_credentials import rotate_credentials
from shared.store.connections import StoredConnection
from shared.store.database import Database
from tests.support.settings import make_settings
from tests.support.sync import OPERATOR

OLD, NEW = (f"{name}:{base64.b64encode(name.encode() * 8).decode()}" for name in ("2024", "2025"))
NOW = datetime(2025, 3, 3, 9, tzinfo=UTC)
SECRET = "s3cret-token"


def sealer(*keys: str) -> Sealer:
    return Sealer(lambda: KeyRing(",".join(keys)))


async def connect(database: Database, sealed_with: Sealer, slug: str = "petrel", **values: Any) -> StoredConnection:
    new = {
        "source": "jira",
        "base_url": "https://petrel.example",
        "credentials": {"email": "sync@petrel.example", "token": SECRET},
        **values,
    }
    new_connection = NewConnection(slug=slug, **new)
    return await create_connection(database, sealed_with, OPERATOR, new_connection, cron="*/15 * * * *")


async def stored(database: Database, slug: str = "petrel") -> StoredConnection:
    async with database.connection() as connection:
        return await existing(connection, slug)


async def add_issue(database: Database, label: str) -> None:
    async with database.connection() as connection:
        await connection.execute(
            """
            insert into issues (import_source, external_id, title, status_category, payload, content_hash, job_id)
            values (%s, '1', 'Printer on fire', 'open', '{}', '', gen_random_uuid())
            """,
            (label,),
        )


async def test_rotation_wraps_every_secret_anew(database: Database) -> None:
    for number in range(3):
        await connect(database, sealer(OLD), f"petrel-{number}")

    rotation = await rotate_credentials(database, sealer(NEW, OLD), OPERATOR)

    assert (rotation.key, rotation.secrets, rotation.unreadable) == ("2025", 3, [])
    for number in range(3):
        opened = open_credentials(sealer(NEW), await stored(database, f"petrel-{number}"))
        assert opened["token"] == SECRET
    again = await rotate_credentials(database, sealer(NEW), OPERATOR)
    assert again.secrets == 0


async def test_a_lost_key_is_named_and_keeps_no_other_connection_from_being_rotated(database: Database) -> None:
    lost = f"2023:{base64.b64encode(b'lost' * 8).decode()}"
    await connect(database, sealer(lost), "harbor")
    await connect(database, sealer(OLD), "petrel")

    rotation = await rotate_credentials(database, sealer(NEW, OLD), OPERATOR)

    assert rotation.secrets == 1
    (unreadable,) = rotation.unreadable
    assert unreadable.slug == "harbor"
    assert "'2023'" in unreadable.detail
    assert "CREDENTIAL_ENCRYPTION_KEY" in unreadable.hint


async def test_credentials_of_a_lost_key_can_be_sent_again(database: Database) -> None:
    await connect(database, sealer(OLD))

    await change_connection(
        database, sealer(NEW), OPERATOR, "petrel", ConnectionChange(credentials={"token": "n3w-token"})
    )

    opened = open_credentials(sealer(NEW), await stored(database))
    assert opened == {"email": "sync@petrel.example", "token": "n3w-token"}


async def test_of_a_lost_key_every_secret_that_stays_is_asked_for(database: Database) -> None:
    both = {"username": "reader", "password": SECRET, "client_id": "abc", "client_secret": SECRET}
    await connect(database, sealer(OLD), source="servicenow", base_url="https://dev1.service-now.com", credentials=both)

    with pytest.raises(InvalidRequestError) as refused:
        await change_connection(
            database, sealer(NEW), OPERATOR, "petrel", ConnectionChange(credentials={"password": "n3w"})
        )

    assert "credentials.client_secret" in refused.value.fields


async def test_of_two_admins_the_second_does_not_overwrite_the_first(database: Database) -> None:
    seen = await connect(database, sealer(OLD))
    mine, yours = ({"projects": [name]} for name in ("HARBOR", "PETREL"))
    change = ConnectionChange(settings=mine, version=seen.version)
    await change_connection(database, sealer(OLD), OPERATOR, "petrel", change)

    late = ConnectionChange(settings=yours, version=seen.version)
    with pytest.raises(ConflictError, match="meanwhile"):
        await change_connection(database, sealer(OLD), OPERATOR, "petrel", late)

    assert (await stored(database)).settings == mine


class Meddling(httpx.AsyncHTTPTransport):
    """Lets something happen before the first request goes out."""

    def __init__(self, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self._happen: Callable[[], Awaitable[object]] | None = happen

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if happen := self._happen:
            self._happen = None
            await happen()
        return await super().handle_async_request(request)


async def test_a_test_does_not_vouch_for_what_was_changed_meanwhile(database: Database) -> None:
    async with tracker_of("jira", seeded(10)) as tracker:
        known = connection_to(tracker).credentials
        await connect(database, sealer(OLD), base_url=tracker.url, credentials=known)
        moved = ConnectionChange(base_url="https://elsewhere.example", credentials={"token": "another"})
        client = httpx.AsyncClient(
            transport=Meddling(lambda: change_connection(database, sealer(OLD), OPERATOR, "petrel", moved))
        )

        with pytest.raises(ConflictError, match="while it was tested"):
            await probe_connection(database, Connectors(client, sealer(OLD), database), OPERATOR, "petrel")

    after = await stored(database)
    assert after.base_url == "https://elsewhere.example"
    assert after.test_passed is None


async def test_a_label_of_other_records_is_not_taken(database: Database) -> None:
    await add_issue(database, "petrel")

    with pytest.raises(ConflictError, match="did not come from such a connection"):
        await connect(database, sealer(OLD))


async def test_a_removed_connection_comes_back_to_its_records_as_the_same_source_only(database: Database) -> None:
    await connect(database, sealer(OLD))
    await add_issue(database, "petrel")
    await remove_connection(database, OPERATOR, "petrel")

    with pytest.raises(ConflictError):
        await connect(database, sealer(OLD), source="gitlab", credentials={"token": SECRET})
    again = await connect(database, sealer(OLD))

    assert again.test_passed is None


async def test_files_stay_out_of_what_a_connection_brings(database: Database, blobs: Blobs) -> None:
    await connect(database, sealer(OLD))
    request = ImportRequest(import_source="petrel", file_name="issues.csv")

    with pytest.raises(ConflictError, match="label of what a connection brings"):
        await reserve_upload(database, blobs, make_settings(), caller=OPERATOR, request=request, now=NOW)


async def test_settings_define_connections_and_keep_them_up_to_date(database: Database) -> None:
    given: dict[str, Any] = {
        "jira_base_url": "https://petrel.example/",
        "jira_api_token": "first",
        "jira_default_project": "OPS",
        "sentry_auth_token": "t",
        "sentry_org": "tidewater",
    }
    await define_defaults(database, sealer(OLD), make_settings(**given))
    first = await stored(database, "jira")
    widened = ConnectionChange(settings={"projects": ["OPS", "HARBOR"]})
    await change_connection(database, sealer(OLD), OPERATOR, "jira", widened)
    await define_defaults(database, sealer(OLD), make_settings(**given))
    same = await stored(database, "jira")

    later = {**given, "jira_api_token": "second", "jira_default_project": "PETREL", "sentry_org": "lighthouse"}
    await define_defaults(database, sealer(OLD), make_settings(**later))

    changed, sentry = await stored(database, "jira"), await stored(database, "sentry")
    assert (first.origin, first.settings) == ("environment", {"projects": ["OPS"]})
    assert same.version == first.version + 1
    assert changed.settings == {"projects": ["OPS", "HARBOR", "PETREL"]}
    assert open_credentials(sealer(OLD), changed)["token"] == "second"
    assert sentry.settings == {"organization": "lighthouse"}


async def test_settings_heal_a_default_connection_whose_key_was_lost(database: Database) -> None:
    given = make_settings(github_token="t0ken")
    await define_defaults(database, sealer(OLD), given)

    await define_defaults(database, sealer(NEW), given)

    assert open_credentials(sealer(NEW), await stored(database, "github")) == {"token": "t0ken"}


async def test_a_connection_made_by_hand_is_not_touched_by_settings(database: Database) -> None:
    await connect(database, sealer(OLD), "github", source="github", credentials={"token": "mine"})

    await define_defaults(database, sealer(OLD), make_settings(github_token="theirs"))

    assert open_credentials(sealer(OLD), await stored(database, "github")) == {"token": "mine"}
