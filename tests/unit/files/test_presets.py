"""Which export a header belongs to, and from which of its columns the fields that matter most are filled."""

import csv
import io

import pytest

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.files.preset import Preset, normalize_header
from shared.files.presets import PRESETS, recognize

JIRA_CLOUD = (
    "Summary,Issue key,Issue id,Issue Type,Status,Project key,Project name,Priority,Resolution,Assignee,Assignee Id,"
    "Reporter,Creator,Created,Updated,Resolved,Due date,Labels,Labels,Description,Environment,Original estimate,Sprint,"
    "Component/s,Outward issue link (Blocks),Custom field (Story point estimate),Comment,Comment,Parent,Parent key"
)
JIRA_SPANISH = (
    "Resumen,Clave de incidencia,ID de la incidencia,Tipo de incidencia,Estado,Prioridad,Persona asignada,Creada,"
    "Actualizada,Etiquetas,Campo personalizado (Story Points)"
)
JIRA_GERMAN = "Zusammenfassung,Vorgangsschlüssel,Vorgangstyp,Status,Priorität,Erstellt,Aktualisiert,Stichwörter"
JIRA_FRENCH = "Résumé,Clé de ticket,Type de ticket,État,Priorité,Création,Mise à jour,Étiquettes"
JIRA_PORTUGUESE = "Resumo,Chave da item,Tipo de item,Status,Prioridade,Responsável,Criado,Atualizado"
JIRA_SERVER = "Project,Key ,Summary,Issue Type,Status,Priority,Resolution,Assignee,Reporter,Created,Updated,Due Date"
GITLAB = (
    "ID,IID,Title,Description,Type,URL,State,Confidential,Locked,Milestone,Labels,Author,Author Username,Assignee,"
    "Assignee Username,Created At (UTC),Updated At (UTC),Closed At (UTC),Due Date,Time Estimate,Time Spent,Weight"
)
GITLAB_OLD = (
    "Title,Description,Issue ID,URL,State,Author,Author Username,Assignee,Assignee Username,Confidential,Locked,"
    "Due Date,Created At (UTC),Updated At (UTC),Closed At (UTC),Milestone,Weight,Labels,Time Estimate,Time Spent"
)
SERVICENOW = "number,short_description,caller_id,category,priority,state,assigned_to,opened_at,sys_updated_on,sys_id"
SERVICENOW_LABELS = (
    "Number,Short description,Caller,Category,Priority,Severity,State,Severity,Assigned to,Opened,Updated"
)
SENTRY = (
    "id,shortId,title,culprit,permalink,level,status,project,project.slug,metadata,metadata.type,firstSeen,lastSeen"
)
SENTRY_CSV = "id,title,level,timestamp,count()"
GITHUB_CLI = "number,title,state,stateReason,author,author.login,assignees,labels,body,createdAt,closedAt,url"
GITHUB_REST = "url,html_url,id,number,title,user,user.login,labels,state,assignees,created_at,closed_at,body"
AZURE = '\ufeffID,"Work Item Type","Title","State","Assigned To","Tags","Created Date","Changed Date"'
AZURE_TREE = "ID,Work Item Type,Title 1,Title 2,Title 3,State,Tags"
BUGZILLA = 'bug_id,"product","component","assigned_to","bug_status","resolution","short_desc","changeddate","opendate"'
BUGZILLA_NAMES = "Bug ID,Product,Component,Assignee,Status,Resolution,Summary,Changed"
LINEAR = (
    "ID,Team,Title,Description,Status,Estimate,Priority,Project,Creator,Assignee,Labels,Cycle Number,Cycle Name,"
    "Created,Updated,Started,Completed,Canceled,Due Date,Parent issue"
)
TEMPLATE = "External ID;Title;Status;Priority;Labels;Due on;Source created at;Lagerort".replace(";", ",")
TEMPLATE_SNAKE = "external_id,title,status,labels,due_on,source_created_at,stack_trace"
PROJECTS = "external_id,name,repository_url,description,owner,source_created_at,source_updated_at"
GENERIC = "Ticket Number,Subject,State,Assigned To,Created On"


@pytest.mark.parametrize(
    ("header", "name", "identity", "title", "created"),
    [
        (JIRA_CLOUD, "jira", "Issue key", "Summary", "Created"),
        (JIRA_SPANISH, "jira", "Clave de incidencia", "Resumen", "Creada"),
        (JIRA_GERMAN, "jira", "Vorgangsschlüssel", "Zusammenfassung", "Erstellt"),
        (JIRA_FRENCH, "jira", "Clé de ticket", "Résumé", "Création"),
        (JIRA_PORTUGUESE, "jira", "Chave da item", "Resumo", "Criado"),
        (JIRA_SERVER, "jira_server", "Key ", "Summary", "Created"),
        (GITLAB, "gitlab", "URL", "Title", "Created At (UTC)"),
        (GITLAB_OLD, "gitlab", "URL", "Title", "Created At (UTC)"),
        (SERVICENOW, "servicenow", "number", "short_description", "opened_at"),
        (SERVICENOW_LABELS, "servicenow", "Number", "Short description", "Opened"),
        (SENTRY, "sentry", "id", "title", "firstSeen"),
        (SENTRY_CSV, "sentry", "id", "title", "timestamp"),
        (GITHUB_CLI, "github", "url", "title", "createdAt"),
        (GITHUB_REST, "github", "html_url", "title", "created_at"),
        (AZURE, "azure_devops", "\ufeffID", "Title", "Created Date"),
        (AZURE_TREE, "azure_devops", "ID", "Title 1", None),
        (BUGZILLA, "bugzilla", "bug_id", "short_desc", "opendate"),
        (BUGZILLA_NAMES, "bugzilla", "Bug ID", "Summary", None),
        (LINEAR, "linear", "ID", "Title", "Created"),
        (TEMPLATE, "template", "External ID", "Title", "Source created at"),
        (TEMPLATE_SNAKE, "template", "external_id", "title", "source_created_at"),
        (GENERIC, "generic", "Ticket Number", "Subject", "Created On"),
    ],
)
def test_an_export_is_recognized_and_its_columns_found(
    header: str, name: str, identity: str, title: str, created: str | None
) -> None:
    headers = _cells(header)
    preset = recognize(headers)
    assert preset.name == name
    assert _column(preset, "external_id", headers) == identity
    assert _column(preset, "title", headers) == title
    assert _column(preset, "source_created_at", headers) == created


def test_a_list_of_projects_is_recognized() -> None:
    preset = recognize(_cells(PROJECTS))
    found = {field: _column(preset, field, _cells(PROJECTS)) for field in ("external_id", "name", "repository_url")}
    assert preset.name == "template"
    assert found == {"external_id": "external_id", "name": "name", "repository_url": "repository_url"}


def test_the_order_and_spelling_of_headers_do_not_matter() -> None:
    headers = [f' "{header.upper()}" ' for header in reversed(_cells(GITLAB))]
    assert recognize(headers).name == "gitlab"


def test_an_unknown_header_is_generic() -> None:
    assert recognize(["alpha", "beta"]).name == "generic"
    assert recognize([]).name == "generic"


def test_old_gitlab_shows_the_number_people_know() -> None:
    assert _column(recognize(_cells(GITLAB_OLD)), "key", _cells(GITLAB_OLD)) == "Issue ID"
    assert _column(recognize(_cells(GITLAB)), "key", _cells(GITLAB)) == "IID"


def test_a_numbered_github_issue_is_known_by_its_address_where_there_is_one() -> None:
    headers = ["number", "title", "state", "createdAt"]
    assert _column(recognize(headers), "external_id", headers) == "number"


@pytest.mark.parametrize(
    ("name", "field", "separator"),
    [("gitlab", "labels", ","), ("azure_devops", "labels", ";"), ("template", "labels", ","), ("jira", "labels", None)],
)
def test_lists_in_one_cell_are_split_as_the_tracker_joins_them(name: str, field: str, separator: str | None) -> None:
    assert _named(name).separators.get(field) == separator


def test_words_for_nothing_are_known() -> None:
    assert "---" in _named("bugzilla").nothing
    assert "?" in _named("servicenow").nothing


def test_limits_of_exports_are_known() -> None:
    assert {1_000, 10_000} <= set(_named("jira").caps)
    assert 10_000 in _named("servicenow").caps


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("createdAt", "created at"),
        ("Created_At", "created at"),
        ('\ufeff"Issue  key" ', "issue key"),
        ("Issue\u00a0Type", "issue type"),
        ("time-estimate", "time estimate"),
        ("author.login", "author.login"),
        ("assignedTo.displayName", "assigned to.display name"),
        ("IID", "iid"),
        ("Created At (UTC)", "created at (utc)"),
        ("Component/s", "component/s"),
        ("'number'", "number"),
        ("", ""),
    ],
)
def test_header_names_are_compared_without_their_spelling(text: str, expected: str) -> None:
    assert normalize_header(text) == expected


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_a_preset_is_consistent(preset: Preset) -> None:
    allowed = {*ISSUE_FIELDS, *PROJECT_FIELDS} - {"payload", "status_category"}
    assert set(preset.columns) <= allowed
    assert preset.lists <= allowed
    assert set(preset.separators) <= preset.lists
    for names in (*preset.columns.values(), *preset.signatures):
        assert all(name and name == normalize_header(name) for name in names), names
        assert len(set(names)) == len(names), names
    for signature in preset.signatures:
        assert recognize(sorted(signature)).name == preset.name


def test_presets_have_names_of_their_own() -> None:
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)


def _cells(header: str) -> list[str]:
    return next(csv.reader(io.StringIO(header)))


def _named(name: str) -> Preset:
    return next(preset for preset in PRESETS if preset.name == name)


def _column(preset: Preset, field: str, headers: list[str]) -> str | None:
    spelled = {normalize_header(header): header for header in reversed(headers)}
    return next((spelled[name] for name in preset.columns.get(field, ()) if name in spelled), None)
