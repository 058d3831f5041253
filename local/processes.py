"""Child processes of the local stack: started in their own session, known by a pid file, stopped by their id."""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from types import FrameType

import psutil


class StackError(Exception):
    """The stack cannot start or go on; the message says why in one line."""


@dataclass(frozen=True)
class Child:
    """A running process and how it likes to be asked to stop."""

    name: str
    process: subprocess.Popen[bytes]
    pid_file: Path
    log_file: Path | None
    stop_signal: signal.Signals = signal.SIGTERM

    def stop(self, seconds: float = 15) -> None:
        """Ask to stop, wait, then kill; does nothing when it has ended."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.pid_file.unlink(missing_ok=True)

    def require_alive(self) -> None:
        code = self.process.poll()
        if code is not None:
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise StackError(f"{self.name} {how}{self._last_words()}")

    def _last_words(self) -> str:
        if self.log_file is None or not self.log_file.exists():
            return ""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"; last line of {self.log_file}: {lines[-1]}" if lines else ""


def start_child(
    name: str,
    command: Sequence[str],
    *,
    state_dir: Path,
    env: Mapping[str, str] | None = None,
    log_file: Path | None,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start a process; Ctrl-C in the terminal does not reach it, so that the stack can stop in order."""
    with (log_file or Path(os.devnull)).open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env) if env is not None else None,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log if log_file else None,
            start_new_session=True,
        )
    pid_file = state_dir / f"{name}.pid"
    pid_file.write_text(str(process.pid))
    return Child(name, process, pid_file, log_file, stop_signal)


def wait_until(condition: Callable[[], bool], child: Child, seconds: float) -> None:
    """Poll until a child is ready; raises when it dies or takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        child.require_alive()
        if time.monotonic() > deadline:
            child.stop()
            raise StackError(f"{child.name} was not ready within {seconds:.0f} s; see {child.log_file}")
        time.sleep(0.05)


def require_free_port(port: int, what: str, setting: str) -> None:
    """Fail with one clear line when something listens on a port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise StackError(f"Port {port} is taken, and {what} needs it: set {setting} to a free port") from None


def stop_on_signals() -> None:
    """Make a polite request to end, or a closed terminal, end this process as Ctrl-C does: in order."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """From here on this process only stops what it started: a second Ctrl-C must not leave half of it running."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def lock_state(state_dir: Path) -> TextIOWrapper | None:
    """Take the lock of a state directory, or None when another stack holds it; the kernel frees it however we end."""
    lock = (state_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock


def end_leftovers(state_dir: Path) -> None:
    """End children of a stack that was killed; call with the lock held, so that they are nobody's.

    A pid may have been given to another process since: its command line must name our state directory.
    """
    for pid_file in state_dir.glob("*.pid"):
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(int(pid_file.read_text()))
            if any(str(state_dir) in argument for argument in process.cmdline()):
                process.send_signal(signal.SIGINT)  # to PostgreSQL a fast shutdown, to the others a request to end
                _wait_for_stranger(process, seconds=15)
        pid_file.unlink(missing_ok=True)


def _wait_for_stranger(process: psutil.Process, seconds: float) -> None:
    """Wait for a process that is not our child; where nobody reaps it, it stays as a zombie."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
