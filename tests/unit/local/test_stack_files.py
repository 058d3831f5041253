"""Env files, blob paths, receipts and ports of the local stack."""

import socket
import subprocess
from pathlib import Path

import pytest

from local.environment import read_env_file, write_env_file
from local.host.blob import Receipts, blob_pattern
from local.processes import StackError, lock_state, require_free_port


def test_an_env_file_reads_back_and_can_be_sourced(tmp_path: Path) -> None:
    values = {"STORAGE": "Name=a;Key=b==;", "EMPTY": "", "QUOTED": "it's $HOME"}
    path = tmp_path / "env"

    write_env_file(path, values)

    assert read_env_file(path) == values
    assert path.stat().st_mode & 0o777 == 0o600
    sourced = subprocess.run(["sh", "-c", f'. {path}; printf %s "$STORAGE$QUOTED"'], capture_output=True, check=True)
    assert sourced.stdout.decode() == values["STORAGE"] + values["QUOTED"]


@pytest.mark.parametrize(
    ("pattern", "name", "parts"),
    [
        ("{name}", "a/b c.csv", {"name": "a/b c.csv"}),
        ("{source}/{name}.csv", "team/x/y.csv", {"source": "team", "name": "x/y"}),
        ("{name}.csv", "a.json", None),
        ("in.(1)/{name}", "in.(1)/a", {"name": "a"}),
    ],
)
def test_blob_paths_match_as_binding_expressions(pattern: str, name: str, parts: dict[str, str] | None) -> None:
    found = blob_pattern(pattern).fullmatch(name)

    assert (found and found.groupdict()) == parts


def test_receipts_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "receipts" / "f.jsonl"

    Receipts(path).add(("a\nb.csv", "0x1"))

    assert ("a\nb.csv", "0x1") in Receipts(path)
    assert ("a\nb.csv", "0x2") not in Receipts(path)


def test_a_taken_port_is_named_with_its_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(StackError, match=rf"^Port {port} is taken, and Azurite needs it: set AZURITE_BLOB_PORT"):
            require_free_port(port, "Azurite", "AZURITE_BLOB_PORT")


def test_a_state_directory_belongs_to_one_stack(tmp_path: Path) -> None:
    first = lock_state(tmp_path)

    assert first is not None
    assert lock_state(tmp_path) is None
    first.close()
    assert lock_state(tmp_path) is not None
