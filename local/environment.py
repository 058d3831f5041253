"""Environment files of the local stack, and the one place where it reads the process environment."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path


def process_environment() -> dict[str, str]:
    """A copy of this process's environment: app settings, as far as the host and its children are concerned."""
    return dict(os.environ)  # noqa: TID251 - the local stack hands app settings to the product, it is not the product


def add_to_process_environment(values: Mapping[str, str]) -> None:
    """Make values visible to the product code that runs in this process."""
    os.environ.update(values)  # noqa: TID251 - see process_environment


def write_env_file(path: Path, values: Mapping[str, str]) -> None:
    """Write `KEY=value` lines a shell can source; the file holds secrets, so only its owner may read it."""
    content = "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(content, encoding="utf-8")


def read_env_file(path: Path) -> dict[str, str]:
    """Read what `write_env_file` wrote; blank lines and comments are skipped."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {key: "".join(shlex.split(value)) for key, _, value in pairs}


def local_settings(root: Path) -> dict[str, str]:
    """`Values` of local.settings.json, the file Core Tools reads too, or of the example when there is none."""
    own = root / "local.settings.json"
    path = own if own.exists() else root / "local.settings.example.json"
    return {key: str(value) for key, value in json.loads(path.read_text(encoding="utf-8"))["Values"].items()}
