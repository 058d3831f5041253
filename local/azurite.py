"""Azurite, Microsoft's storage emulator: blobs and queues on loopback."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import httpx
from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

from local.processes import Child, StackError, require_free_port, start_child, wait_until

# Once idle, V8 answers every few megabytes of network buffers by marking the whole heap in steps: an upload then costs
# Azurite three times the processor time, until it ends. Marking in one go does not start again and again.
NODE_OPTIONS = ("--no-incremental-marking",)
SCRIPT = Path(__file__).with_name("node_modules") / "azurite" / "dist" / "src" / "azurite.js"
BLOB_PORT_SETTING = "AZURITE_BLOB_PORT"
QUEUE_PORT_SETTING = "AZURITE_QUEUE_PORT"
CONTAINERS = ("uploads", "files")
ACCOUNT = "devstoreaccount1"
# The emulator's published account key, the same on every machine: no secret.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class RunningAzurite:
    """A running emulator; the connection string is what AzureWebJobsStorage expects."""

    connection_string: str
    child: Child

    def stop(self) -> None:
        self.child.stop()


def connection_string(blob_port: int, queue_port: int) -> str:
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};"
        f"BlobEndpoint=http://127.0.0.1:{blob_port}/{ACCOUNT};QueueEndpoint=http://127.0.0.1:{queue_port}/{ACCOUNT};"
    )


def start_azurite(data_dir: Path, blob_port: int, queue_port: int, state_dir: Path | None = None) -> RunningAzurite:
    """Start the emulator on two ports and make sure the product's containers exist."""
    node = shutil.which("node")
    if node is None or not SCRIPT.exists():
        raise StackError("Node.js or Azurite is missing: install Node 20 or later and run `make setup`")
    require_free_port(blob_port, "Azurite (blobs)", BLOB_PORT_SETTING)
    require_free_port(queue_port, "Azurite (queues)", QUEUE_PORT_SETTING)
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    options = ["--silent", "--skipApiVersionCheck", "--disableTelemetry", "--location", str(data_dir)]
    ports = ["--blobPort", str(blob_port), "--queuePort", str(queue_port), "--tablePort", "0"]
    child = start_child(
        "azurite",
        [node, *NODE_OPTIONS, str(SCRIPT), *options, *ports],
        state_dir=state_dir or data_dir,
        log_file=data_dir / "azurite.log",
    )
    wait_until(lambda: _answers(blob_port) and _answers(queue_port), child, seconds=60)
    connection = connection_string(blob_port, queue_port)
    _create_containers(connection)
    return RunningAzurite(connection, child)


def _answers(port: int) -> bool:
    """Any answer will do: without a signature it is a refusal."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/{ACCOUNT}?comp=list", timeout=2)
    except httpx.TransportError:
        return False
    return True


def _create_containers(connection: str) -> None:
    with BlobServiceClient.from_connection_string(connection) as service:
        for name in CONTAINERS:
            try:
                service.create_container(name)
            except ResourceExistsError:
                continue
