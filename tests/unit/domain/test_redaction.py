"""Secrets in texts: each sample holds one, and none may be left."""

import time

import pytest

from shared.domain.redaction import REDACTED, redact, redact_value

JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ.eyJzdWIiOiJidWlsZC1hZ2VudCJ9.c2lnbmF0dXJl-x_y"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {JWT}", JWT),
        (f"sent {{'authorization': 'Bearer {JWT}'}} upstream", JWT),
        ("authorization=Basic Y2xhcmE6aHVudGVyMg== again", "Y2xhcmE6aHVudGVyMg"),
        ("Authorization: Token 0123456789abcdef", "0123456789abcdef"),
        ("X-API-Key: trib_Zm9vYmFyYmF6cXV4", "Zm9vYmFyYmF6cXV4"),
        ('{"x-api-key": "opaque-value-1"}', "opaque-value-1"),
        ("x-functions-key=abc123==", "abc123"),
        ("the key trib_Zm9vYmFyYmF6cXV4 was refused", "Zm9vYmFyYmF6cXV4"),
        (f"cannot decode {JWT}", JWT),
        ("https://stone.blob.core.windows.net/u/a.csv?sv=2026-04-06&sig=aB%2Fc%3D123456&se=x", "aB%2Fc%3D123456"),
        ("https://app.example/runtime/webhooks/blobs?functionName=x&code=SystemKey123==", "SystemKey123"),
        ("AccountName=stone;AccountKey=c2VjcmV0c2VjcmV0==;Suffix=x", "c2VjcmV0c2VjcmV0"),
        ("SharedAccessSignature=sv=2026&sig=abcdefghijk", "abcdefghijk"),
        ("postgresql://importer:p%40ss/w0rd@db.example:5432/tributary", "p%40ss"),
        ("postgresql://importer:s3cret:with:colons@db.example/tributary", "s3cret"),
        ("connection failed: host=db user=importer password=s3cret dbname=x", "s3cret"),
        ('{"client_secret": "wq8~abc"}', "wq8~abc"),
    ],
)
def test_secrets_are_taken_out(text: str, secret: str) -> None:
    cleaned = redact(text)

    assert secret not in cleaned
    assert REDACTED in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "Batch 3 of 17 loaded: 5,000 rows in 0.4 s",
        "GET https://stone.blob.core.windows.net/uploads/a.csv?sv=2026-04-06&se=2026-12-01",
        "The signature of the file is missing",
        "postgresql://db.example:5432/tributary",
        "mailto:clara@example.org",
        "code=42",
    ],
)
def test_harmless_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


def test_values_are_cleaned_at_any_depth_and_by_name() -> None:
    value = {
        "job": "4e1",
        "headers": {"X-API-Key": "opaque", "accept": "text/csv"},
        "urls": ["https://a.example/?sig=abcdefgh", "https://b.example/"],
        "payload": b"secret rows",
    }

    assert redact_value("request", value) == {
        "job": "4e1",
        "headers": {"X-API-Key": REDACTED, "accept": "text/csv"},
        "urls": [f"https://a.example/?sig={REDACTED}", "https://b.example/"],
        "payload": "11 bytes",
    }


@pytest.mark.parametrize("name", ["password", "apiKey", "client_secret", "access_token", "connection_string"])
def test_a_telling_name_hides_its_value(name: str) -> None:
    assert redact_value(name, "anything at all") == REDACTED
    assert redact_value(name, "") == ""


@pytest.mark.parametrize("unit", ["a.b-c+", "a://", "http://a:b", "eyJhbGci.", "password=", "Bearer ", "&sig="])
def test_long_texts_are_cut_and_cost_little(unit: str) -> None:
    started = time.perf_counter()

    cleaned = redact(unit * 100_000)

    assert len(cleaned) < 100_000
    assert cleaned.endswith("[cut]")
    assert time.perf_counter() - started < 1
