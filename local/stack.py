"""The whole stack on one machine: PostgreSQL, Azurite, the schema, and the function host."""

import base64
import secrets
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from local.azurite import RunningAzurite, start_azurite
from local.environment import local_settings, process_environment, write_env_file
from local.postgres import RunningPostgres, is_embedded, require_reachable, start_postgres
from local.processes import (
    Child,
    StackError,
    end_leftovers,
    lock_state,
    require_free_port,
    start_child,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[1]
HOST_PORT_SETTING = "TRIBUTARY_PORT"
HOST_READY_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """Where the stack keeps its state and on which ports it listens."""

    state_dir: Path = ROOT / ".local"
    app_dir: Path = ROOT
    port: int = 7071
    postgres_port: int = 5433
    blob_port: int = 10000
    queue_port: int = 10001
    database_url: str = ""
    quiet: bool = False
    extra_settings: Mapping[str, str] = field(default_factory=dict[str, str])


class AlreadyRunningError(StackError):
    """Another stack uses this state directory."""


class Stack:
    """A running stack; `start` it or use it as a context manager, which stops what it started."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.state_dir = options.state_dir.resolve()
        self.settings: dict[str, str] = {}
        self.host: Child | None = None
        self._lock: TextIOWrapper | None = None
        self._postgres: RunningPostgres | None = None
        self._azurite: RunningAzurite | None = None

    def __enter__(self) -> Self:
        try:
            self.start_services()
            self.start_host()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.options.port}"

    @property
    def children(self) -> list[Child]:
        """What runs now, in the order in which it has to stop."""
        services = [service.child for service in (self._azurite, self._postgres) if service]
        return [*([self.host] if self.host else []), *services]

    def start_services(self) -> None:
        """Start database and storage side by side, bring the schema up to date, and write the env files."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock_state(self.state_dir)
        if self._lock is None:
            raise AlreadyRunningError(f"A stack is already running with its state in {self.state_dir}: stop it first")
        end_leftovers(self.state_dir)
        require_free_port(self.options.port, "the function host", HOST_PORT_SETTING)
        with ThreadPoolExecutor(2) as pool:
            starting = [pool.submit(self._start_postgres), pool.submit(self._start_azurite)]
        for start in starting:
            start.result()
        self._prepare()

    def start_host(self) -> Child:
        """Start the function host, also again after it ended, and wait until it serves."""
        env_file = self.state_dir / "host.env"
        arguments = ["--app", str(self.options.app_dir), "--env-file", str(env_file), "--state", str(self.state_dir)]
        self.host = start_child(
            "host",
            [sys.executable, "-m", "local.host", "--port", str(self.options.port), *arguments],
            state_dir=self.state_dir,
            # Freed memory goes back to the system sooner with few arenas, and the host uses few threads.
            env={**process_environment(), "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "2"},
            log_file=self.state_dir / "logs" / "host.err" if self.options.quiet else None,
            cwd=self.options.app_dir,
        )
        wait_until(self._host_serves, self.host, HOST_READY_SECONDS)
        return self.host

    def stop(self) -> None:
        for child in self.children:
            child.stop()
        self.host = self._azurite = self._postgres = None
        if self._lock:
            self._lock.close()

    def _start_postgres(self) -> None:
        if not self._has_own_database:
            self._postgres = start_postgres(
                self.state_dir / "postgres", self.options.postgres_port, state_dir=self.state_dir
            )

    @property
    def _has_own_database(self) -> bool:
        """Whether DATABASE_URL names a server of the user's; after `source .local/env` it names the embedded one."""
        url = self.options.database_url
        return bool(url) and not is_embedded(self.state_dir / "postgres", url)

    def _start_azurite(self) -> None:
        options = self.options
        self._azurite = start_azurite(
            self.state_dir / "azurite", options.blob_port, options.queue_port, state_dir=self.state_dir
        )

    def _prepare(self) -> None:
        from shared.store.migrate import migrate

        environment = process_environment()
        storage = self._azurite.connection_string if self._azurite else ""
        database = self._postgres.url if self._postgres else self.options.database_url
        require_reachable(database)
        migrate(database)
        api_key = self._secret("api-key")
        self.settings = {
            **{name: environment.get(name, value) for name, value in local_settings(ROOT).items()},
            **self.options.extra_settings,
            "AzureWebJobsStorage": storage,
            "UploadsStorage": storage,
            "DATABASE_URL": database,
            "TRIBUTARY_BOOTSTRAP_KEY": api_key,
            "FUNCTIONS_MASTER_KEY": self._secret("master-key"),
            "CREDENTIAL_ENCRYPTION_KEY": environment.get("CREDENTIAL_ENCRYPTION_KEY") or self._sealing_key(),
            "TRIBUTARY_PORT": str(self.options.port),
        }
        (self.state_dir / "logs").mkdir(exist_ok=True)
        write_env_file(self.state_dir / "host.env", self.settings)
        outside = {"TRIBUTARY_URL": self.url, "TRIBUTARY_API_KEY": api_key}
        shared = {name: self.settings[name] for name in ("DATABASE_URL", "AzureWebJobsStorage")}
        write_env_file(self.state_dir / "env", outside | shared)

    def _secret(self, name: str) -> str:
        """A random key, the same in every run with this state directory."""
        path = self.state_dir / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(32))
        return path.read_text()

    def _sealing_key(self) -> str:
        key = base64.b64encode(sha256(self._secret("sealing-key").encode()).digest()).decode()
        return f"local:{key}"

    def _host_serves(self) -> bool:
        try:
            response = httpx.get(
                f"{self.url}/admin/host/status", headers={"x-functions-key": self._secret("master-key")}, timeout=5
            )
        except httpx.TransportError:
            return False
        return response.status_code == httpx.codes.OK


def options_from_environment() -> StackOptions:
    """Ports and database from TRIBUTARY_PORT, POSTGRES_PORT, AZURITE_BLOB_PORT, AZURITE_QUEUE_PORT, DATABASE_URL."""
    defaults = StackOptions()
    return StackOptions(
        port=port_from_environment("TRIBUTARY_PORT", defaults.port),
        postgres_port=port_from_environment("POSTGRES_PORT", defaults.postgres_port),
        blob_port=port_from_environment("AZURITE_BLOB_PORT", defaults.blob_port),
        queue_port=port_from_environment("AZURITE_QUEUE_PORT", defaults.queue_port),
        database_url=process_environment().get("DATABASE_URL", ""),
    )


def port_from_environment(name: str, default: int) -> int:
    """The port a variable names; StackError if that is no number."""
    text = process_environment().get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise StackError(f"{name} is {text!r}, which is no port number") from None
