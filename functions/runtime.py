"""The composition root: what a worker process shares between its functions, made when first needed."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shared import telemetry
from shared.blobs import Blobs
from shared.security.entra import EntraVerifier
from shared.security.outbound import guarded_client
from shared.security.sealing import KeyRing, MasterKeys, Sealer
from shared.services.default_connections import define_defaults
from shared.services.open_connector import Connectors
from shared.settings import Settings, settings
from shared.store.database import Database


@dataclass(frozen=True)
class Runtime:
    """Everything the triggers hand to services."""

    settings: Settings
    database: Database
    blobs: Blobs
    verifier: EntraVerifier | None
    connectors: Connectors
    # Parsing holds the interpreter lock: more batches side by side than this only cost memory.
    loading: asyncio.Semaphore = field(repr=False)


_OBJECTS_BETWEEN_COLLECTIONS = 50_000
_runtime: Runtime | None = None
_making = asyncio.Lock()


async def runtime() -> Runtime:
    """The runtime of this worker."""
    global _runtime  # noqa: PLW0603  # one per process is the point; the platform offers no start-up hook to hold it
    async with _making:
        if _runtime is None:
            _runtime = await _make(settings())
    return _runtime


async def _make(chosen: Settings) -> Runtime:
    telemetry.configure(chosen)
    # A batch makes hundreds of thousands of objects and no cycles; looking for some would take a tenth of its time.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    database = Database(
        chosen.database_url.get_secret_value(),
        size=chosen.database_pool_size,
        password=_entra_password() if chosen.database_auth == "entra" else None,
    )
    await database.open()
    sealer = Sealer(lambda: _master_keys(chosen))
    connectors = Connectors(guarded_client(allow_private=chosen.allow_private_addresses), sealer, database)
    await define_defaults(database, sealer, chosen)
    return Runtime(
        settings=chosen,
        database=database,
        blobs=Blobs(chosen),
        verifier=EntraVerifier(chosen) if chosen.entra_tenant_id else None,
        connectors=connectors,
        loading=asyncio.Semaphore(chosen.load_concurrency),
    )


def _master_keys(chosen: Settings) -> MasterKeys:
    ring = chosen.credential_encryption_key.get_secret_value()
    if chosen.credential_key_vault_key:
        from shared.security.key_vault import KeyVaultKeys

        return KeyVaultKeys(chosen.credential_key_vault_key, former=KeyRing(ring) if ring else None)
    return KeyRing(ring)


def _entra_password() -> Callable[[], Awaitable[str]]:
    from azure.identity import DefaultAzureCredential

    credential = DefaultAzureCredential()

    async def token() -> str:
        # The credential caches and renews by itself; PostgreSQL checks the token only when a connection is made.
        scope = "https://ossrdbms-aad.database.windows.net/.default"
        return (await asyncio.to_thread(credential.get_token, scope)).token

    return token
