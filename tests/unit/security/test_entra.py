"""Access tokens against an issuer with real keys."""

import base64
import json
import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.domain.caller import Role
from shared.domain.errors import NotAllowedError, NotAuthenticatedError, UnavailableError
from shared.security.entra import EntraVerifier
from tests.support.issuer import API, Issuer, SigningKey
from tests.support.settings import make_settings


@pytest.fixture(scope="module")
def shared_issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of this test's own, to rotate, count and break."""
    with Issuer() as issuer:
        yield issuer


def verifier_of(issuer: Issuer, *, cool_down_seconds: float = 30) -> EntraVerifier:
    return EntraVerifier(make_settings(**issuer.settings()), cool_down_seconds=cool_down_seconds)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_good_token_of_either_version_is_accepted(shared_issuer: Issuer, version: int) -> None:
    token = shared_issuer.token("Tributary.Write", version=version, oid="0b51", sub="0b51")

    caller = await verifier_of(shared_issuer).verify(token)

    assert (caller.id, caller.name) == (f"entra:{shared_issuer.tenant}:0b51", "build-agent")
    assert caller.role is Role.OPERATOR


async def test_a_user_is_accepted_by_scope_and_named(shared_issuer: Issuer) -> None:
    token = shared_issuer.token(
        "Tributary.Read", idtyp=None, sub="pairwise", scp="access_as_user", preferred_username="ida@kelpworks.example"
    )

    caller = await verifier_of(shared_issuer).verify(token)

    assert (caller.name, caller.role) == ("ida@kelpworks.example", Role.READER)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["Tributary.Read"], Role.READER),
        (["Tributary.Read", "Tributary.Write"], Role.OPERATOR),
        (["Tributary.Write", "Tributary.Admin", "Tributary.Read"], Role.ADMIN),
        (["Other.Admin", "Tributary.Read"], Role.READER),
    ],
)
async def test_the_highest_role_wins(shared_issuer: Issuer, roles: list[str], expected: Role) -> None:
    assert (await verifier_of(shared_issuer).verify(shared_issuer.token(*roles))).role is expected


@pytest.mark.parametrize("roles", [None, [], ["Reports.Read"], "Tributary.Admin", {"Tributary.Admin": 1}])
async def test_a_genuine_token_without_our_roles_is_not_allowed(shared_issuer: Issuer, roles: object) -> None:
    with pytest.raises(NotAllowedError):
        await verifier_of(shared_issuer).verify(shared_issuer.token(roles=roles))


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"iss": "https://login.elsewhere.example/t/v2.0"}, id="wrong issuer"),
        pytest.param({"iss": None}, id="no issuer"),
        pytest.param({"aud": "api://something-else"}, id="wrong audience"),
        pytest.param({"aud": None}, id="no audience"),
        pytest.param({"exp": int(time.time()) - 3600}, id="expired"),
        pytest.param({"exp": None}, id="never expires"),
        pytest.param({"nbf": int(time.time()) + 3600}, id="not yet valid"),
        pytest.param({"nbf": None}, id="no begin"),
        pytest.param({"iat": None}, id="no issue time"),
        pytest.param({"tid": "00000000-0000-4000-8000-000000000000"}, id="other tenant"),
        pytest.param({"tid": None}, id="no tenant"),
        pytest.param({"oid": None}, id="no object id"),
        pytest.param({"idtyp": None, "sub": "pairwise", "nonce": "n"}, id="ID token"),
    ],
)
async def test_a_token_that_is_not_for_us_now_is_refused(shared_issuer: Issuer, claims: dict[str, object]) -> None:
    with pytest.raises(NotAuthenticatedError):
        await verifier_of(shared_issuer).verify(shared_issuer.token("Tributary.Admin", **claims))


async def test_clocks_may_differ_by_a_little(shared_issuer: Issuer) -> None:
    token = shared_issuer.token("Tributary.Read", nbf=int(time.time()) + 30, exp=int(time.time()) + 90)

    assert await verifier_of(shared_issuer).verify(token)


async def test_an_unsigned_token_is_refused(shared_issuer: Issuer) -> None:
    token = jwt.encode(shared_issuer.claims("Tributary.Admin"), None, algorithm="none", headers={"kid": "first"})

    with pytest.raises(NotAuthenticatedError):
        await verifier_of(shared_issuer).verify(token)


async def test_a_token_signed_with_the_public_key_as_a_password_is_refused(shared_issuer: Issuer) -> None:
    public = shared_issuer.keys[0].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT", "kid": "first"}, shared_issuer.claims("Tributary.Admin"))
    )
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signed = base64.urlsafe_b64encode(_hmac(signature, head + b"." + body, public)).rstrip(b"=")

    with pytest.raises(NotAuthenticatedError):
        await verifier_of(shared_issuer).verify(b".".join([head, body, signed]).decode())


def _hmac(algorithm: jwt.algorithms.HMACAlgorithm, message: bytes, key: bytes) -> bytes:
    return algorithm.sign(message, key)  # the library's encode() refuses such a key, an attacker's does not


async def test_a_changed_token_is_refused(shared_issuer: Issuer) -> None:
    head, _, signature = shared_issuer.token("Tributary.Read").split(".")
    body = base64.urlsafe_b64encode(json.dumps(shared_issuer.claims("Tributary.Admin")).encode()).rstrip(b"=").decode()

    with pytest.raises(NotAuthenticatedError):
        await verifier_of(shared_issuer).verify(f"{head}.{body}.{signature}")


async def test_a_strangers_key_under_a_known_id_is_refused(shared_issuer: Issuer) -> None:
    token = shared_issuer.token("Tributary.Admin", key=SigningKey("first"))

    with pytest.raises(NotAuthenticatedError):
        await verifier_of(shared_issuer).verify(token)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "eyJ.eyJ.", "..", "é" * 40, "x" * 100_000, "Bearer a.b.c"])
async def test_garbage_is_refused_without_a_fetch(issuer: Issuer, token: str) -> None:
    with pytest.raises(NotAuthenticatedError):
        await verifier_of(issuer).verify(token)

    assert issuer.fetches == 0


async def test_keys_are_fetched_once(issuer: Issuer) -> None:
    verifier = verifier_of(issuer)

    for _ in range(5):
        await verifier.verify(issuer.token("Tributary.Read"))

    assert issuer.fetches == 1


async def test_a_new_key_is_fetched_when_a_token_names_it(issuer: Issuer) -> None:
    verifier = verifier_of(issuer, cool_down_seconds=0)
    await verifier.verify(issuer.token("Tributary.Read"))
    old = issuer.token("Tributary.Read")
    issuer.rotate()

    assert await verifier.verify(issuer.token("Tributary.Read"))
    with pytest.raises(NotAuthenticatedError):
        await verifier.verify(old)


async def test_unknown_key_ids_cause_no_storm_of_fetches(issuer: Issuer) -> None:
    verifier = verifier_of(issuer)
    await verifier.verify(issuer.token("Tributary.Read"))

    for number in range(5):
        with pytest.raises(NotAuthenticatedError):
            await verifier.verify(issuer.token("Tributary.Admin", key=SigningKey(f"unknown-{number}")))

    assert issuer.fetches == 1


async def test_an_authority_that_fails_is_unavailable_and_left_alone_for_a_while(issuer: Issuer) -> None:
    verifier = verifier_of(issuer)
    issuer.broken = True

    for _ in range(3):
        with pytest.raises(UnavailableError):
            await verifier.verify(issuer.token("Tributary.Read"))

    assert issuer.fetches == 1


async def test_known_keys_go_on_working_while_the_authority_fails(issuer: Issuer) -> None:
    verifier = verifier_of(issuer, cool_down_seconds=0)
    await verifier.verify(issuer.token("Tributary.Read"))
    issuer.broken = True

    with pytest.raises(UnavailableError):
        await verifier.verify(issuer.token("Tributary.Read", key=SigningKey("unknown")))

    assert await verifier.verify(issuer.token("Tributary.Read"))


async def test_only_the_configured_audiences_count(shared_issuer: Issuer) -> None:
    verifier = EntraVerifier(make_settings(**shared_issuer.settings() | {"entra_audiences": (f"api://{API}",)}))

    with pytest.raises(NotAuthenticatedError):
        await verifier.verify(shared_issuer.token("Tributary.Read"))
