"""Master keys in Azure Key Vault: the RSA key wraps and unwraps there and never leaves."""

from collections.abc import Callable

from azure.core.exceptions import AzureError, HttpResponseError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from shared.domain.errors import UnavailableError
from shared.security.sealing import MasterKeys, UnsealError

_ALGORITHM = KeyWrapAlgorithm.rsa_oaep_256
_CONNECT_SECONDS = 5
_READ_SECONDS = 10
_RETRIES = 2
# Throttled, and what passes by itself on the server's side.
_PASSING = {408, 429, 500, 502, 503, 504}


class KeyVaultKeys:
    """An RSA key by its URL, `https://<vault>.vault.azure.net/keys/<name>/<version>`.

    The URL with its version is the key's id, so older versions still unwrap what they wrapped. `former` unwraps what
    was sealed before there was a vault, until it is rotated.
    https://learn.microsoft.com/azure/key-vault/keys/about-keys-details
    """

    def __init__(
        self,
        url: str,
        *,
        former: MasterKeys | None = None,
        client_of: Callable[[str], CryptographyClient] | None = None,
    ) -> None:
        self.current = url
        self._former = former
        self._client_of = client_of or _clients()
        self._clients: dict[str, CryptographyClient] = {}

    def wrap(self, data_key: bytes) -> bytes:
        """Wrap with the version of the key that the setting names."""
        try:
            return self._client(self.current).wrap_key(_ALGORITHM, data_key).encrypted_key
        except AzureError as error:
            raise _refusal(error, "wrap", "wrapKey") from error

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Unwrap with the version that wrapped."""
        if not _is_in_vault(key_id):
            return self._ring_of(key_id).unwrap(key_id, wrapped)
        try:
            return self._client(key_id).unwrap_key(_ALGORITHM, wrapped).key
        except AzureError as error:
            raise _refusal(error, "unwrap", "unwrapKey") from error

    def require(self, key_id: str) -> None:
        """UnsealError if the key is of a ring that is not there; what the vault has is seen when it is asked."""
        if not _is_in_vault(key_id):
            self._ring_of(key_id).require(key_id)

    def _ring_of(self, key_id: str) -> MasterKeys:
        if self._former is None:
            raise UnsealError(
                f"The key {key_id!r} that sealed these credentials is one of a key ring",
                hint="Keep CREDENTIAL_ENCRYPTION_KEY beside CREDENTIAL_KEY_VAULT_KEY until credentials are rotated",
            )
        return self._former

    def _client(self, key_id: str) -> CryptographyClient:
        if key_id not in self._clients:
            self._clients[key_id] = self._client_of(key_id)
        return self._clients[key_id]


def _is_in_vault(key_id: str) -> bool:
    return key_id.startswith("https://")


def _clients() -> Callable[[str], CryptographyClient]:
    credential = DefaultAzureCredential()

    def make(key_id: str) -> CryptographyClient:
        return CryptographyClient(
            key_id,
            credential,
            connection_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            retry_total=_RETRIES,
        )

    return make


def _refusal(error: AzureError, act: str, permission: str) -> UnsealError | UnavailableError:
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status is None or status in _PASSING:
        return UnavailableError(f"Key Vault does not answer, and without it credentials cannot be {act}ped")
    return UnsealError(
        f"Key Vault does not {act} the key of these credentials: {status}",
        hint=f"Look whether that version of the key is enabled and the app may `{permission}`",
    )
