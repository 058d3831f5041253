"""Blobs with an identity instead of an account key, as in Azure: Azurite over TLS, checking bearer tokens."""

import ipaddress
import shutil
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from local.azurite import ACCOUNT, SCRIPT
from local.processes import start_child, wait_until
from shared.blobs import Blobs
from tests.support.ports import free_ports
from tests.support.settings import make_settings


class Identity:
    """A managed identity; counts how often it is asked for a token."""

    def __init__(self) -> None:
        self.asked = 0

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == ("https://storage.azure.com/.default",)
        self.asked += 1
        now = int(time.time())
        claims = {"aud": "https://storage.azure.com", "iss": "https://sts.windows.net/t/", "oid": "7", "tid": "t"}
        token = jwt.encode({**claims, "iat": now, "nbf": now - 60, "exp": now + 3600}, "x" * 32)
        return AccessToken(token, now + 3600)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as files."""
    directory = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "azurite")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(signed.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


@pytest.fixture(scope="module")
def endpoint(certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a store that takes bearer tokens over TLS."""
    directory = tmp_path_factory.mktemp("azurite")
    blob_port, queue_port = free_ports(2)
    command = [shutil.which("node") or "node", str(SCRIPT), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    command += ["--oauth", "basic", "--cert", str(certificate[0]), "--key", str(certificate[1])]
    command += ["--location", str(directory), "--blobPort", str(blob_port), "--queuePort", str(queue_port)]
    child = start_child(
        "azurite", [*command, "--tablePort", "0"], state_dir=directory, log_file=directory / "azurite.log"
    )
    url = f"https://127.0.0.1:{blob_port}/{ACCOUNT}"

    def answers() -> bool:
        try:
            httpx.get(url, verify=False, timeout=2)
        except httpx.TransportError:
            return False
        return True

    try:
        wait_until(answers, child, seconds=30)
        yield url
    finally:
        child.stop()


@pytest.fixture
def identity() -> Identity:
    return Identity()


@pytest.fixture
async def blobs(
    endpoint: str, certificate: tuple[Path, Path], identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> Blobs:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    blobs = Blobs(make_settings(storage_blob_uri=endpoint, environment="azure"), credential=identity)
    await blobs.create_containers()
    return blobs


async def test_an_identity_reads_and_writes(blobs: Blobs) -> None:
    await blobs.ready()
    await blobs.upload("files", "identity/a.csv", b"id,title", overwrite=True)

    assert await blobs.head("files", "identity/a.csv", 2) == b"id"


async def test_upload_urls_are_signed_by_delegation_for_https_alone(
    blobs: Blobs, certificate: tuple[Path, Path]
) -> None:
    url = await blobs.upload_url("uploads", "identity/b.csv", minutes=5)

    parts = parse_qs(urlsplit(url).query)
    assert (parts["sp"], parts["spr"], parts["skoid"]) == (["cw"], ["https"], ["7"])
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=certificate[0])) as http:
        written = await http.put(url, content=b"id,title", headers={"x-ms-blob-type": "BlockBlob"})
        assert (written.status_code, (await http.get(url)).status_code) == (201, 403)
    assert await blobs.head("uploads", "identity/b.csv", 100) == b"id,title"


async def test_one_delegation_key_signs_many_urls(blobs: Blobs) -> None:
    urls = [await blobs.upload_url("uploads", f"identity/{number}.csv", minutes=5) for number in range(3)]

    starts = {parse_qs(urlsplit(url).query)["skt"][0] for url in urls}
    assert len(starts) == 1
