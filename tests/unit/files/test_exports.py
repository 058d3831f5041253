"""Rows of trackers' exports come out as a careful person reads them; all else stays in the payload."""

import json
from typing import Any

import pytest

from shared.domain.errors import FileRefusedError
from shared.files.reader import Reader
from tests.support.reading import Imported, load


def read(header: str, *rows: str, **options: Any) -> dict[str, Any]:
    """The first record of a CSV, normalized."""
    return load("\n".join((header, *rows, "")), **options).values()


def read_json(*records: dict[str, Any], **options: Any) -> Imported:
    return load(json.dumps(records), **options)


@pytest.mark.parametrize(
    ("number", "code", "category"),
    [
        *(("INC0010001", "1", "open"), ("INC0010001", "2", "in_progress"), ("INC0010001", "3", "in_progress")),
        *(("INC0010001", "6", "done"), ("INC0010001", "7", "done"), ("INC0010001", "8", "done")),
        *(("PRB0040001", "4", "done"), ("PRB0040001", "102", "in_progress"), ("PRB0040001", "107", "done")),
        *(("CHG0030001", "-5", "open"), ("CHG0030001", "-1", "in_progress"), ("CHG0030001", "3", "done")),
        *(("SCTASK0010", "3", "done"), ("SCTASK0010", "2", "in_progress"), ("4711", "7", "done")),
        ("INC0010001", "99", "open"),
    ],
)
def test_servicenow_states_are_read_as_their_table_counts_them(number: str, code: str, category: str) -> None:
    found = read("number,short_description,state", f"{number},Lift stuck,{code}")

    assert (found["status"], found["status_category"]) == (code, category)


def test_servicenow_class_tells_the_table_whatever_the_number_looks_like() -> None:
    found = read("number,short_description,state,sys_class_name", "X-1,Lift stuck,3,Change Request")

    assert found["status_category"] == "done"


def test_servicenow_times_with_a_displayed_twin_are_those_in_utc() -> None:
    record = {
        "number": {"display_value": "INC7", "value": "INC7"},
        "short_description": {"display_value": "Lift stuck", "value": "Lift stuck"},
        "state": {"display_value": "In Progress", "value": "2"},
        "opened_at": {"display_value": "03/04/2025 08:00:00 PM", "value": "2025-03-05 04:00:00"},
        "category": {"display_value": "Hardware", "value": "hardware"},
        "cmdb_ci": {"display_value": "Lift 3", "value": "a1b2"},
    }
    found = load(json.dumps({"result": [record]})).values()

    assert (found["status"], found["source_created_at"]) == ("In Progress", "2025-03-05T04:00:00+00:00")
    assert json.loads(found["components"]) == ["Hardware", "Lift 3"]


@pytest.mark.parametrize(
    ("severity", "priority", "expected"),
    [
        *(("blocker", "P5", "critical"), ("major", "--", "high"), ("normal", "P1", "medium"), ("minor", "P1", "low")),
        *(("enhancement", "P1", "low"), ("--", "P2", "high"), ("N/A", "--", None), ("", "P3", "medium")),
    ],
)
def test_bugzilla_severity_counts_and_without_one_the_priority(
    severity: str, priority: str, expected: str | None
) -> None:
    found = read("bug_id,short_desc,bug_severity,priority", f"7,Rudder squeaks,{severity},{priority}")

    assert (found["severity"], found["priority"]) == (expected, priority)


def test_azure_devops_people_are_names_and_texts_markdown() -> None:
    found = load(
        "ID,Work Item Type,Title 1,Title 2,Assigned To,Created By,Description,Repro Steps\n"
        "1,Epic,Harbour,,Ada Vale <ada@vale.example>,Ivo Lind <VALE\\ivo>,<div>Big <b>plan</b></div>,\n"
        "2,Bug,,Crane stops,Unassigned,,,<ul><li>lift</li></ul>\n"
    )

    parent, child = found.values(0), found.values(1)
    assert (parent["title"], parent["assignee"], parent["reporter"]) == ("Harbour", "Ada Vale", "Ivo Lind")
    assert parent["description"] == "Big **plan**"
    assert (child["title"], child["description"]) == ("Crane stops", "- lift")
    assert json.loads(found.good[0].payload)["Assigned To"] == "Ada Vale <ada@vale.example>"


def test_jira_rows_name_the_current_sprint_and_keep_all_of_them() -> None:
    found = load(
        "Summary,Issue key,Sprint,Sprint,Sprint,Description\n"
        "Crane stops,HB-1,Spring 1,Spring 2,,see h2. *here*\nQuay,HB-2,,,,\n"
    )

    assert (found.values(0)["sprint"], found.values(1)["sprint"]) == ("Spring 2", None)
    assert json.loads(found.good[0].payload)["Sprint"] == ["Spring 1", "Spring 2"]
    assert found.values(0)["description"] == "see h2. **here**"


def test_jira_fields_are_read_from_whichever_of_their_columns_is_filled() -> None:
    header = (
        "Summary,Issue key,Custom field (Story Points),Custom field (Story point estimate),"
        "Parent key,Custom field (Epic Link)"
    )
    found = load(f"{header}\na,HB-1,3,,,HB-9\nb,HB-2,,5,HB-8,HB-9\nc,HB-3,,x,,\n")

    assert [(row["story_points"], row["parent"]) for row in (found.values(0), found.values(1))] == [
        ("3", "HB-9"),
        ("5", "HB-8"),
    ]
    assert found.broken[0].problems[0].column == "Custom field (Story point estimate)"


def test_columns_that_are_only_guessed_at_do_not_stand_in_for_each_other() -> None:
    found = read("ticket,subject,assignee,owner", "7,Door jams,,Product board")

    assert found["assignee"] is None


def test_jira_documents_become_markdown() -> None:
    text = {"type": "paragraph", "content": [{"type": "text", "text": "Stops at noon", "marks": [{"type": "strong"}]}]}
    document = {"type": "doc", "version": 1, "content": [text]}
    found = read_json({"id": "10001", "key": "HB-1", "fields": {"summary": "Crane", "description": document}})

    assert found.values()["description"] == "**Stops at noon**"
    assert json.loads(found.good[0].payload)["fields"]["description"] == document


def test_pull_requests_in_a_dump_of_github_issues_can_be_told_from_issues() -> None:
    base = {"title": "t", "state": "open", "user": {"login": "ada"}, "labels": [], "body": "", "created_at": None}
    root = "https://github.com/vale/crane"
    found = read_json(
        {**base, "number": 1, "html_url": f"{root}/issues/1"},
        {**base, "number": 2, "html_url": f"{root}/pull/2", "pull_request": {"html_url": f"{root}/pull/2"}},
    )

    assert [(row["type"], row["project"]) for row in (found.values(0), found.values(1))] == [
        (None, "vale/crane"),
        ("Pull request", "vale/crane"),
    ]


def test_gitlab_issues_belong_to_the_project_in_their_address() -> None:
    found = read(
        "Title,URL,State,IID,Author Username", "Crane,https://git.example/port/north/crane/-/issues/7,Open,7,ada"
    )

    assert (found["project"], found["key"]) == ("port/north/crane", "7")


def test_columns_that_name_their_zone_cause_no_warning() -> None:
    row = "Crane,https://git.example/p/c/-/issues/7,Open,7,ada,2025-03-31 14:05:00"
    found = load(f"Title,URL,State,IID,Author Username,Created At (UTC)\n{row}\n")

    assert (found.values()["source_created_at"], found.warnings) == ("2025-03-31T14:05:00+00:00", [])


@pytest.mark.parametrize("time", ["2025-03-31T14:05:00+02:00", "2025-03-31T14:05:00Z", "2025-03-31 14:05 -0500"])
def test_times_with_an_offset_cause_no_warning(time: str) -> None:
    assert load(f"external_id,title,source_created_at\n1,Crane,{time}\n").warnings == []


def test_ids_a_spreadsheet_has_rounded_are_warned_of() -> None:
    [warning] = load("external_id,title\n1.23E+12,Crane\n").warnings

    assert "1.23E+12" in warning


def test_tags_of_pairs_become_labels_with_their_values() -> None:
    found = read_json({"id": "1", "title": "t", "tags": [{"key": "release", "value": "1.4"}]})

    assert json.loads(found.values()["labels"]) == ["release: 1.4"]


def test_invisible_characters_around_a_title_are_left_out() -> None:
    assert read("external_id,title", "1,\u200b Crane \ufeff")["title"] == "Crane"


@pytest.mark.parametrize(
    ("content", "titles"),
    [
        ('{"result": {"number": "INC1", "short_description": "x", "watchers": [{"id": 1, "name": "n"}]}}', ["x"]),
        ('{"id": 1, "name": "Board", "issues": [{"id": 1, "title": "a"}, {"id": 2, "title": "b"}]}', ["a", "b"]),
        ('{"project": {"id": 1, "name": "P", "issues": [{"id": 1, "title": "a"}]}}', ["a"]),
        ('{"id": 1, "title": "one", "errors": [{"type": "x"}]}', ["one"]),
    ],
    ids=["wrapped-record", "envelope-with-a-name", "list-in-a-project", "record-with-a-list"],
)
def test_records_are_found_in_answers_of_many_shapes(content: str, titles: list[str]) -> None:
    found = load(content)

    assert [found.values(row)["title"] for row in range(len(found.good))] == titles


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"issue": {"id": 1, "title": "t", "labels": [{"id": 5, "name": "bug"}]}, "user": {"id": 9}}', "no_records"),
        ('{"issue": {"id": 1, "key": "A-1", "fields": {"parts": [{"id": 5, "name": "c"}]}}, "n": {}}', "no_records"),
        ('{"records": []}', "no_records"),
        ('{"a": 1, "b": "x', "truncated"),
        ('{"a": 1,, "b": 2}', "invalid_json"),
    ],
)
def test_lists_within_an_issue_are_not_taken_for_records(content: str, reason: str) -> None:
    with pytest.raises(FileRefusedError) as caught:
        load(content)

    assert caught.value.reason == reason


def test_dates_of_json_are_read_one_way_in_the_whole_file() -> None:
    found = read_json(
        {"external_id": "1", "title": "a", "due_on": "03/04/2025"},
        {"external_id": "2", "title": "b", "due_on": "25/12/2025"},
        {"external_id": "3", "title": "c", "due_on": "12/25/2025"},
    )

    assert (found.values(0)["due_on"], found.codes) == ("2025-04-03", ["invalid_date"])
    assert "begin with the day" in found.warnings[-1]


def test_keys_that_first_appear_late_are_read() -> None:
    filler = "x" * 4000
    early = [{"external_id": str(number), "title": "t", "more": filler} for number in range(400)]
    found = read_json(*early, {"external_id": "late", "title": "t", "labels": ["a"], "source_updated_at": "2025-03-01"})

    assert json.loads(found.values(400)["labels"]) == ["a"]
    assert found.values(400)["source_updated_at"] == "2025-03-01T00:00:00+00:00"


def given_late(row: bytes) -> Imported:
    """A file whose first megabyte is plain ASCII."""
    ascii_rows = b"".join(b"A-%d,%b\n" % (number, b"x" * 1000) for number in range(1200))
    return load(b"external_id,title\n" + ascii_rows + row)


def test_letters_of_windows_behind_a_plain_beginning_are_read_with_a_warning() -> None:
    found = given_late("Ö-1,Kräne „Nord“\n".encode("cp1252"))

    assert (found.good[-1].external_id, found.values(-1)["title"]) == ("Ö-1", "Kräne „Nord“")
    assert json.loads(found.good[-1].payload) == {"external_id": "Ö-1", "title": "Kräne „Nord“"}
    [warning] = found.remarks.sentences(found.layout.other_encoding)
    assert warning.startswith("1 row has bytes that are no UTF-8 and were read as cp1252")


def test_utf8_behind_a_plain_beginning_stays_utf8_and_a_broken_letter_is_rejected() -> None:
    found = given_late("Ö-1,Kräne\n".encode() + "Ö-2,Größe übel ".encode() + b"\xe4\n")

    assert (found.good[-1].external_id, found.codes) == ("Ö-1", ["invalid_encoding"])
    assert found.remarks.recoded == 0


def test_a_line_of_json_in_another_encoding_says_so() -> None:
    lines = b'{"external_id":"1","title":"a"}\n{"external_id":"2","title":"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4"}\n'
    found = load(lines + b'{"external_id":"3","title":"\xe4"}\n')

    assert (len(found.good), found.codes) == (2, ["invalid_encoding"])


def test_rows_with_too_few_cells_are_counted() -> None:
    found = load("external_id,title,labels,note\n1,a,b,c\n2,d\n3,e,\n4,f,,\n")

    assert [record.external_id for record in found.good] == ["1", "2", "3", "4"]
    [warning] = found.remarks.sentences(None)
    assert warning.startswith("2 rows have fewer cells than the header")


JIRA = (
    "Issue key,Summary,Labels,Labels,Sprint,Sprint,Custom field (Story Points),Custom field (Story point estimate),"
    "Parent key,Custom field (Epic Link),Description"
)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (JIRA, "HB-{0},Crane,a,,S1,S2,,5,,HB-9,h2. x"),
        (JIRA, "HB-{0},Crane,,,S1,,3,5,HB-8,HB-9,"),
        ("number,short_description,state,category,cmdb_ci", "INC{0},Lift,6,Hardware,?"),
        ("ID,Work Item Type,Title 1,Title 2,Assigned To", "{0},Bug,,Crane,Ada Vale <ada@vale.example>"),
        ("Title,URL,State,IID,Author Username", "Crane,https://git.example/p/crane/-/issues/{0},closed,{0},ada"),
        ("external_id,title,labels,note", "{0},Crane,a"),
    ],
)
def test_records_come_out_alike_whether_read_together_or_singly(header: str, row: str) -> None:
    raws = [f"{row.format(number)}\n".encode() for number in range(40)]
    together = load(f"{header}\n".encode() + b"".join(raws))
    reader = Reader(together.layout)

    singly = [reader.normalize([raw], [number])[0][0] for number, raw in enumerate(raws, 2)]

    assert together.good == singly
    assert together.remarks == reader.remarks
