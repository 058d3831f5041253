"""API keys as secrets."""

from shared.domain.redaction import redact
from shared.security.api_keys import generate_key, hash_key, is_same_key, shown_part


def test_keys_are_long_random_and_recognizable() -> None:
    keys = {generate_key() for _ in range(200)}

    assert len(keys) == 200
    assert all(key.startswith("trib_") and len(key) == 48 for key in keys)


def test_what_is_stored_and_shown_does_not_open_anything() -> None:
    key = generate_key()

    assert key.encode() not in hash_key(key)
    assert shown_part(key) == key[:11]
    assert not is_same_key(shown_part(key), key)


def test_only_the_very_key_is_the_same() -> None:
    key = generate_key()

    assert is_same_key(key, key)
    assert not is_same_key(key.swapcase(), key)
    assert not is_same_key("", key)
    assert not is_same_key("", "")


def test_a_key_does_not_survive_in_a_log() -> None:
    key = generate_key()
    assert key[5:] not in redact(f"refused {key}, sent by build-agent")
