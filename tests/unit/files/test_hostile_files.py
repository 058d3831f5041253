"""What a hostile, broken or merely odd file must not do: stop a batch, lose a record, or reach COPY unfit."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import FileRefusedError
from shared.domain.issue import ISSUE_FIELDS
from shared.domain.job import Kind
from tests.support.reading import Imported, load


def one_cell(column: str, value: str) -> Imported:
    quoted = value.replace('"', '""')
    return load(f'external_id,title,{column}\n1,t,"{quoted}"\n')


def test_file_without_a_known_signature_is_read_by_common_column_names() -> None:
    found = load("id,subject\n7,Door jams\n")

    assert (found.good[0].external_id, found.values()["title"]) == ("7", "Door jams")


def test_title_lines_and_footer_of_an_old_server_export_are_no_issues() -> None:
    found = load(
        "Hangar tracker\nDisplaying 2 issues\n\nKey ,Summary,Status\nHG-1,x,Open\nHG-2,y,Closed\n"
        "Generated at Mon Oct 06 09:12:44 UTC 2025 by Ilse using JIRA 6.2\n"
    )

    assert [(record.row, record.external_id) for record in found.good] == [(5, "HG-1"), (6, "HG-2")]
    assert not found.broken


@pytest.mark.parametrize("blank", [";;", "   ", " ; ;", '"";"";""'])
def test_rows_of_empty_cells_count_as_rows_but_are_no_records(blank: str) -> None:
    found = load(f"external_id;title;x\n1;a;b\n{blank}\n2;c;d\n")

    assert [record.row for record in found.good] == [2, 4]
    assert not found.broken


def test_first_rows_wider_than_the_header_do_not_become_the_header() -> None:
    found = load("external_id,title\n1,a,b,c\n2,x,,\n3\n4,ok\n")

    assert [record.external_id for record in found.good] == ["2", "4"]
    assert "too_many_cells" in found.codes


def test_path_that_ends_in_a_backslash_does_not_swallow_its_neighbour() -> None:
    found = load('external_id,title,description\n1,"C:\\dir\\","x"\n2,"say \\"hi\\" twice","z"\n3,"D:\\","q"\n')

    assert [record.external_id for record in found.good] == ["1", "2", "3"]
    assert found.values()["title"].startswith("C:")
    assert found.values()["description"] == "x"


def test_preferred_id_column_wins_wherever_it_stands() -> None:
    header = (
        "ID,IID,Title,Description,Type,URL,State,Confidential,Locked,Milestone,Labels,Author,Author Username,Assignee,"
        "Assignee Username,Created At (UTC),Updated At (UTC),Closed At (UTC),Due Date"
    )
    cells = "900,3,t,,Issue,https://git.example/a/-/issues/3,Open,No,No,,,Ulla,ulla,,,2025-01-02 03:04:05,,,"
    found = load(f"{header}\n{cells}\n")

    assert found.good[0].external_id == "https://git.example/a/-/issues/3"


def test_header_with_bytes_that_are_no_text_stops_nothing() -> None:
    found = load("external_id,title,ä ä ä ä ".encode() + b"\xf6\n1,\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4,b\n")

    assert found.good[0].external_id == "1"
    assert json.loads(found.good[0].payload)["title"] == "ääää"


@pytest.mark.parametrize("encoding", ["base64", "rot13", "idna", "hex", "zip", "punycode", "undefined", "no-such"])
def test_encoding_that_is_no_text_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(FileRefusedError) as caught:
        load("external_id,title\n1,a\n", encoding=encoding)

    assert caught.value.reason == "encoding"


@pytest.mark.parametrize(
    ("content", "ids", "broken"),
    [
        (b'\xef\xbb\xbf{"external_id":"1","title":"a"}\n{"external_id":"2","title":"b"}\n', ["1", "2"], 0),
        ('{"external_id":"1","title":"a\u2028b"}\n{"external_id":"2","title":"b\x85"}\n'.encode(), ["1", "2"], 0),
        (b'{"external_id":"1","title":"cut \\ud83d"}\n{"external_id":"2","title":"b"}\n', ["1", "2"], 0),
        (b'{"external_id":"1","title":"a"}\n[1]\n{"external_id":\n\n{"external_id":"5","title":"e"}\n', ["1", "5"], 2),
        (b'{"external_id":"1","tit\n{"external_id":"2","title":"b"}\n{"external_id":"3","title":"c"}\n', ["2", "3"], 1),
        (b'[{"external_id":"1","title":"a"},5,null,[],{"external_id":"5","title":"e"}]', ["1", "5"], 3),
        (b'[{"external_id":123456789012345678901234567890,"title":"a"}]', ["123456789012345678901234567890"], 0),
        (b'{"data":{"issues":[{"external_id":"1","title":"a"}]}}', ["1"], 0),
        (b'{\n"external_id":"1",\n"title":"a",\n"labels":[{"name":"x"}],"people":[{"name":"q"}]}', ["1"], 0),
        (b'[{"external_id":"1","title":"a","n":1e999},{"external_id":"2","title":"b"}]', ["1", "2"], 0),
    ],
    ids=["bom", "line-separator", "half-emoji", "array-line", "first-line-broken", "no-objects", "huge-id",
         "nested-array", "one-pretty-object", "huge-number"],
)  # fmt: skip
def test_json_in_every_shape_loses_only_what_is_broken(content: bytes, ids: list[str], broken: int) -> None:
    found = load(content)

    assert [record.external_id for record in found.good] == ids
    assert len(found.broken) == broken


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":['], ids=["arrays", "objects", "both"])
def test_depth_bomb_is_refused_at_once(opening: bytes) -> None:
    # A path as long as the depth is built at every level by a careless parser: keep this well below a gigabyte.
    with pytest.raises(FileRefusedError):
        load(opening * 4_000)


def test_text_behind_the_array_is_not_called_cut_off() -> None:
    with pytest.raises(FileRefusedError) as caught:
        load('[{"external_id":"1","title":"a"}] and more')

    assert caught.value.reason == "invalid_json"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("story_points", "1E-1000000"),
        ("story_points", "1e-20000"),
        ("estimate_seconds", "9" * 30 + "w"),
        ("estimate_seconds", "9" * 400 + "w"),
        ("environment", '{"a":"\\u0000"}'),
        ("environment", '{"a\\u0000":1}'),
        ("environment", '{"a":' + "[" * 900 + "]" * 900 + "}"),
        ("url", "https://"),
        ("url", "http://[::1"),
        ("source_created_at", "2025-01-02T03:04:05+05:30:15"),
        ("due_on", "٣/٤/٢٠٢٥"),
    ],
)
def test_odd_value_is_stored_fit_for_copy_or_rejected(column: str, value: str) -> None:
    found = one_cell(column, value)

    if found.good:
        _assert_fit(found.values(), found.good[0].payload)
    else:
        assert found.broken[0].external_id == "1"
        assert found.broken[0].problems[0].column == column


def _assert_fit(values: dict[str, Any], payload: bytes) -> None:
    assert "\0" not in str(json.loads(payload.decode())).replace("\\x00", "\0")
    for name, value in values.items():
        if value is None:
            continue
        assert "\0" not in value
        value.encode()
        if name in {"environment", "labels", "components"}:
            assert "\0" not in str(json.loads(value)).replace("\\x00", "\0")
    assert values["story_points"] is None or len(values["story_points"]) < 100
    assert values["estimate_seconds"] is None or abs(int(values["estimate_seconds"])) < 2**63


@pytest.mark.parametrize(
    ("column", "value"),
    [("estimate_seconds", "9" * 20_000), ("story_points", "9" * 20_000), ("assignee", "a " * 9_000)],
)
def test_long_cell_takes_no_time(column: str, value: str) -> None:
    began = time.process_time()
    found = one_cell(column, value)

    assert time.process_time() - began < 1
    assert [problem.column for record in found.broken for problem in record.problems] == [column]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("source_created_at", "0001-01-01T00:00:00+08:00"),
        ("resolved_at", "9999-12-31T23:59:59-08:00"),
        ("source_updated_at", "0000-01-01T00:00:00Z"),
        ("source_updated_at", "10000-01-01T00:00:00Z"),
        ("due_on", "0000-12-31"),
        ("due_on", "10000-01-01"),
        ("story_points", "Infinity"),
        ("story_points", "NaN"),
        ("estimate_seconds", "9223372036854775808"),
    ],
)
@pytest.mark.parametrize("form", ["alone", "many", "json"])
def test_what_no_column_holds_is_rejected_with_row_column_and_hint(column: str, value: str, form: str) -> None:
    rows = {"alone": 1, "many": 40, "json": 1}[form]
    if form == "json":
        found = load(json.dumps({"external_id": "1", "title": "t", column: value}) + "\n")
    else:
        found = load(f"external_id,title,{column}\n" + "0,t,\n" * (rows - 1) + f"1,t,{value}\n")

    [record] = found.broken
    [problem] = record.problems
    assert record.row == (1 if form == "json" else rows + 1)
    assert (problem.column, problem.value) == (column, value)
    assert problem.hint.startswith("Write ")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["9" * 40 + "w", "1E-99999", "2025-01-01T00:00:00+14:00", "{", '{"a":"\\u0000"}', "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
RECORDS = st.lists(st.dictionaries(st.sampled_from(ISSUE_FIELDS), VALUES, max_size=12), min_size=1, max_size=4)


# The first text of a run loads the Unicode tables, which a busy machine takes for a slow strategy.
@given(RECORDS)
def test_whatever_json_holds_every_record_ends_good_and_fit_or_rejected(records: list[dict[str, Any]]) -> None:
    content = "\n".join(['{"external_id":"known","title":"t"}', *(json.dumps(record) for record in records)])

    found = load(content)

    # Records that share an id are duplicates of each other; nothing else may be missing.
    assert 1 <= len(found.good) + len(found.broken) <= len(records) + 1
    for row in range(len(found.good)):
        _assert_fit(found.values(row), found.good[row].payload)
    json.dumps([record.payload for record in found.broken], ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "address",
    ["git.example:team/app", "https://git.example:99999/x", "https://[bad/x", "https://git.example:abc/x", "C:\\repo"],
)
def test_odd_repository_address_does_not_stop_the_batch(address: str) -> None:
    found = load(f"name,repository_url\nDocks,{address}\nYard,https://git.example/yard\n", kind=Kind.PROJECTS)

    assert "git.example/yard#Yard" in [record.external_id for record in found.good]
    assert len(found.good) + len(found.broken) == 2


def test_password_in_a_repository_address_is_not_kept() -> None:
    found = load("name,repository_url\nDocks,https://ola:s3cret@git.example/docks.git\n", kind=Kind.PROJECTS)

    assert "s3cret" not in str(found.good[0])


def test_ssh_and_https_addresses_name_the_same_repository() -> None:
    found = load(
        "name,repository_url\nDocks,ssh://git@git.example:22/a/docks.git\nDocks,https://git.example/a/docks\n",
        kind=Kind.PROJECTS,
    )

    assert len(found.good) == 1


def test_line_of_nothing_but_nul_bytes_stops_nothing() -> None:
    found = load(b"external_id,title\n1,a\n\0\0\n2,b\n")

    assert [record.row for record in found.good] == [2, 4]


def test_one_date_order_holds_for_the_whole_file() -> None:
    found = load("external_id,title,due_on\n1,a,13/04/2025\n2,b,04/13/2025\n3,c,14/04/2025\n")

    assert {record.external_id for record in found.good} == {"1", "3"}
    assert any("date_order" in warning for warning in found.warnings)


def test_order_of_dates_is_found_even_if_they_begin_late() -> None:
    empty = "".join(f"{number},a,\n" for number in range(500))
    found = load(f"external_id,title,due_on\n{empty}x,b,03/04/2025\ny,c,14/05/2025\n")

    assert not found.broken


def test_times_without_a_zone_are_pointed_out() -> None:
    found = load("external_id,title,source_created_at\n1,a,2025-03-04 05:06:07\n")

    assert any("zone" in warning.lower() or "UTC" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("status", "category"),
    [
        ("Erledigt", "done"),
        ("Cerrada", "done"),
        ("Terminé", "done"),
        ("Em andamento", "in_progress"),
        ("Gelöst", "done"),
    ],
)
def test_status_of_a_translated_site_is_understood(status: str, category: str) -> None:
    assert one_cell("status", status).values()["status_category"] == category


def test_unknown_status_with_a_resolution_date_is_done() -> None:
    found = load("external_id,title,status,resolved_at\n1,a,Ausgeliefert,2025-01-02\n")

    assert found.values()["status_category"] == "done"
