"""Master keys in Azure Key Vault: the RSA key wraps and unwraps there and never leaves."""

from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from shared.security.sealing import UnsealError

_ALGORITHM = KeyWrapAlgorithm.rsa_oaep_256


class KeyVaultKeys:
    """An RSA key by its URL, `https://<vault>.vault.azure.net/keys/<name>/<version>`.

    The URL with its version is the key's id, so older versions still unwrap what they wrapped.
    https://learn.microsoft.com/azure/key-vault/keys/about-keys-details
    """

    def __init__(self, url: str) -> None:
        self.current = url
        self._credential = DefaultAzureCredential()

    def wrap(self, data_key: bytes) -> bytes:
        """Wrap with the version of the key that the setting names."""
        return CryptographyClient(self.current, self._credential).wrap_key(_ALGORITHM, data_key).encrypted_key

    def unwrap(self, key_id: str, wrapped: bytes) -> bytes:
        """Unwrap with the version that wrapped."""
        try:
            return CryptographyClient(key_id, self._credential).unwrap_key(_ALGORITHM, wrapped).key
        except AzureError as error:
            raise UnsealError(
                "Key Vault does not unwrap the key of these credentials",
                hint="Look whether that version of the key is enabled and the app may `unwrapKey`",
            ) from error
