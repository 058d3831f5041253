"""Master keys in Key Vault; the key is real, and only the vault's answers are made up."""

import base64
from types import SimpleNamespace

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from azure.keyvault.keys import JsonWebKey
from azure.keyvault.keys.crypto import CryptographyClient
from cryptography.hazmat.primitives.asymmetric import rsa

from shared.domain.errors import UnavailableError
from shared.security.key_vault import KeyVaultKeys
from shared.security.sealing import KeyRing, Sealer, UnsealError

OLD, NEW = (f"https://petrel.vault.azure.net/keys/tributary/{version}" for version in ("1", "2"))


def key_client(key_id: str) -> CryptographyClient:
    """The part of the library that wraps, with a key of its own instead of one in a vault."""
    secret = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
    public = secret.public_numbers
    numbers = {
        "n": public.n,
        "e": public.e,
        "d": secret.d,
        "p": secret.p,
        "q": secret.q,
        "dp": secret.dmp1,
        "dq": secret.dmq1,
        "qi": secret.iqmp,
    }
    encoded = {name: value.to_bytes((value.bit_length() + 7) // 8) for name, value in numbers.items()}
    return CryptographyClient.from_jwk(JsonWebKey(kid=key_id, kty="RSA", key_ops=["wrapKey", "unwrapKey"], **encoded))


def refusing(error: Exception) -> KeyVaultKeys:
    def refuse(*_: object) -> None:
        raise error

    return KeyVaultKeys(OLD, client_of=lambda _: SimpleNamespace(wrap_key=refuse, unwrap_key=refuse))  # pyright: ignore[reportArgumentType]


def refused(status: int) -> HttpResponseError:
    error = HttpResponseError("refused")
    error.status_code = status
    return error


def test_an_older_version_opens_what_it_sealed_and_a_rotation_moves_it() -> None:
    clients = {key_id: key_client(key_id) for key_id in (OLD, NEW)}
    before = Sealer(lambda: KeyVaultKeys(OLD, client_of=clients.__getitem__))
    after = Sealer(lambda: KeyVaultKeys(NEW, client_of=clients.__getitem__))
    stored = before.seal("s3cret", owner="a", field="token")

    rotated = after.rewrap(stored)

    assert after.open(stored, owner="a", field="token") == "s3cret"
    assert rotated is not None
    assert rotated["key"] == NEW
    assert after.open(rotated, owner="a", field="token") == "s3cret"


def test_what_a_key_ring_sealed_moves_into_the_vault() -> None:
    ring = KeyRing(f"2024:{base64.b64encode(b'o' * 32).decode()}")
    client = key_client(NEW)
    stored = Sealer(lambda: ring).seal("s3cret", owner="a", field="token")
    vault = Sealer(lambda: KeyVaultKeys(NEW, former=ring, client_of=lambda _: client))

    rotated = vault.rewrap(stored)

    assert rotated is not None
    alone = Sealer(lambda: KeyVaultKeys(NEW, client_of=lambda _: client))
    assert alone.open(rotated, owner="a", field="token") == "s3cret"
    with pytest.raises(UnsealError) as error:
        alone.open(stored, owner="a", field="token")
    assert "CREDENTIAL_ENCRYPTION_KEY" in error.value.hint


@pytest.mark.parametrize("error", [refused(429), refused(503), ServiceRequestError("no route")], ids=str)
def test_a_vault_that_is_out_of_reach_is_tried_again(error: Exception) -> None:
    keys = refusing(error)

    with pytest.raises(UnavailableError):
        keys.unwrap(OLD, b"wrapped")
    with pytest.raises(UnavailableError):
        keys.wrap(b"data key")


@pytest.mark.parametrize(("status", "names"), [(403, "unwrapKey"), (404, "enabled")])
def test_a_vault_that_refuses_says_what_to_look_at(status: int, names: str) -> None:
    with pytest.raises(UnsealError) as error:
        refusing(refused(status)).unwrap(OLD, b"wrapped")

    assert names in error.value.hint


def test_which_keys_are_missing_is_known_without_asking_the_vault() -> None:
    vault = refusing(ServiceRequestError("no route"))
    beside_a_ring = KeyVaultKeys(NEW, former=KeyRing(f"2024:{base64.b64encode(b'o' * 32).decode()}"))

    vault.require(OLD)
    beside_a_ring.require("2024")
    for keys in (vault, beside_a_ring):
        with pytest.raises(UnsealError, match="'2023'"):
            keys.require("2023")
