"""JSON of trackers: what is cut or odd costs as little as it can, and records come one at a time."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.connectors._json import Unread, from_json

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def texts_of(content: bytes) -> list[msgspec.Raw]:
    return msgspec.json.decode(content, type=list[msgspec.Raw])


@given(st.lists(values, max_size=6), st.booleans())
def test_records_are_the_same_whether_they_are_read_at_once_or_one_by_one(records: list[Any], ascii_only: bool) -> None:
    content = json.dumps(records, ensure_ascii=ascii_only).encode(errors="replace")

    one_by_one: Unread[Any] = Unread(texts_of(content), lambda value: value)

    assert list(one_by_one) == from_json(content)
    assert list(one_by_one) == list(one_by_one), "a second look shows something else"
    assert len(one_by_one) == len(records)
    assert list(one_by_one[1:]) == from_json(content)[1:]


def test_a_record_whose_text_is_cut_in_a_character_keeps_the_rest() -> None:
    whole = '[{"title": "Übersicht", "id": 1}, {"title": "next", "id": 2}]'.encode()
    cut = whole.replace("Ü".encode(), "Ü".encode()[:1])

    records: Unread[Any] = Unread(texts_of(cut), lambda value: value)

    assert records[0]["title"].endswith("bersicht")
    assert records[1] == {"title": "next", "id": 2}
    assert from_json(cut)[0]["id"] == 1


def test_half_of_a_surrogate_pair_costs_one_character() -> None:
    assert from_json(rb'{"title": "a\ud83d b"}') == {"title": "a\ufffd b"}


@pytest.mark.parametrize("content", [b"<html>", b'[{"a": 1}', b'{"a": 1} x', b"[" * 100_000])
def test_what_is_no_json_is_told(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        from_json(content)
    assert isinstance(error.value, json.JSONDecodeError)
