"""The exports we know."""

from collections.abc import Sequence
from dataclasses import replace

from shared.files.preset import Markup, Preset, columns, normalize_header, signatures
from shared.files.synonyms import GENERIC, TEMPLATE

# Headers of the site's language stand beside English ones in one file: English, Spanish, German, French, Portuguese.
_JIRA_KEY = "issue key | key | clave de incidencia | vorgangsschlüssel | clé de ticket | chave da item | chave do item"
_JIRA = Preset(
    name="jira",
    source="jira",
    signatures=signatures(
        "summary | issue key",
        "summary | issue key | issue id | issue type | status",
        "resumen | clave de incidencia",
        "zusammenfassung | vorgangsschlüssel",
        "résumé | clé de ticket",
        "resumo | chave da item",
        "resumo | chave do item",
        # Sites translate some headers and leave others.
        "summary | clave de incidencia",
        "summary | vorgangsschlüssel",
        "summary | clé de ticket",
        "summary | chave da item",
        "summary | chave do item",
        "resumen | issue key",
        "zusammenfassung | issue key",
        "résumé | issue key",
        "resumo | issue key",
        "key | fields.summary",
    ),
    columns=columns(
        external_id=_JIRA_KEY,
        key=_JIRA_KEY,
        title="summary | fields.summary | resumen | zusammenfassung | résumé | resumo",
        description="description | fields.description | descripción | beschreibung | descrição",
        type="issue type | fields.issuetype | tipo de incidencia | tipo de actividad | vorgangstyp | type de ticket"
        " | tipo de item | tipo de issue",
        status="status | fields.status | estado | statut | état",
        priority="priority | fields.priority | prioridad | priorität | priorité | prioridade",
        severity="custom field (severity) | campo personalizado (severity) | benutzerdefiniertes feld (severity)"
        " | champs personnalisés (severity)",
        assignee="assignee | fields.assignee.display name | fields.assignee | persona asignada | zugewiesene person"
        " | bearbeiter | personne assignée | responsable | responsável",
        reporter="reporter | fields.reporter.display name | fields.reporter | informador | autor | rapporteur"
        " | relator",
        labels="labels | fields.labels | etiquetas | stichwörter | étiquettes | categorias",
        components="component/s | components | fields.components | componentes | componente/s | komponenten"
        " | komponente(n) | composants | componente(s)",
        project="project name | project | fields.project.name | nombre del proyecto | projektname | nom du projet"
        " | nome do projeto | project key",
        parent="parent key | fields.parent.key | parent | parent id | custom field (epic link)"
        " | custom field (parent link) | übergeordnet | principal",
        sprint="sprint | custom field (sprint)",
        environment="environment | fields.environment | entorno | umgebung | environnement | ambiente",
        stack_trace="custom field (stack trace) | custom field (stacktrace)",
        url="issue url",
        due_on="due date | fields.duedate | fecha de vencimiento | fälligkeitsdatum | fällig | date d'échéance"
        " | échéance | data limite | data de entrega",
        resolution="resolution | fields.resolution | resolución | lösung | résolution | resolução",
        story_points="custom field (story points) | custom field (story point estimate) | story points"
        " | campo personalizado (story points) | campo personalizado (story point estimate)"
        " | benutzerdefiniertes feld (story points) | benutzerdefiniertes feld (story point estimate)"
        " | champs personnalisés (story points) | champs personnalisés (story point estimate)",
        estimate_seconds="original estimate | fields.timeoriginalestimate | estimación original"
        " | ursprüngliche schätzung | estimation originale | estimation initiale | estimativa original",
        source_created_at="created | fields.created | creada | creado | erstellt | création | créé | criado",
        source_updated_at="updated | fields.updated | actualizada | actualizado | aktualisiert | mise à jour"
        " | mis à jour | atualizado",
        resolved_at="resolved | fields.resolutiondate | resuelta | resuelto | erledigt | gelöst | résolu | résolue"
        " | resolvido",
    ),
    markup=Markup.WIKI,
    caps=(1_000, 10_000),
)
# Old Servers write one column a field and join its values; newer ones repeat the column, and a name may have a comma.
_JIRA_SERVER = replace(
    _JIRA,
    name="jira_server",
    signatures=signatures("key | summary | issue type", "key | summary | status | assignee | reporter"),
    separators={"labels": ",", "components": ","},
)
_GITLAB = Preset(
    name="gitlab",
    source="gitlab",
    signatures=signatures(
        "title | url | state | iid | author username",
        "title | url | state | issue id | author username",
        "title | url | state | issue id | created at (utc)",
        "title | web url | state | iid | project id",
    ),
    columns=columns(
        # The iid counts anew in every project and the file does not name the project; only the address tells apart.
        external_id="url | web url | iid | issue id",
        key="references.full | iid | issue id",
        title="title",
        description="description",
        type="type | issue type",
        status="state",
        severity="severity",
        assignee="assignee | assignee username | assignee.name",
        reporter="author | author username | author.name",
        labels="labels",
        parent="parent iid | parent id | epic.iid",
        sprint="iteration | iteration.title | milestone.title | milestone",
        url="url | web url",
        due_on="due date",
        story_points="weight",
        estimate_seconds="time estimate | time stats.time estimate",
        source_created_at="created at (utc) | created at",
        source_updated_at="updated at (utc) | updated at",
        resolved_at="closed at (utc) | closed at",
    ),
    separators={"labels": ","},
)
_SERVICENOW = Preset(
    name="servicenow",
    source="servicenow",
    signatures=signatures("number | short description", "number | incident state"),
    columns=columns(
        external_id="number",
        key="number",
        title="short description",
        description="description",
        type="sys class name | task type",
        status="state | incident state",
        # Its severity is 3 - Low unless somebody changes it, so ours follows from the priority.
        priority="priority",
        assignee="assigned to",
        reporter="caller id | caller | opened by",
        components="category | subcategory | cmdb ci | configuration item",
        project="assignment group",
        parent="parent incident | parent",
        # Of a field with both, `value` is UTC and the displayed time is in the zone and format of whoever exported.
        due_on="due date.value | due date",
        resolution="close code | resolution code | closed code",
        source_created_at="opened at.value | opened at | opened | sys created on.value | sys created on | created",
        source_updated_at="sys updated on.value | sys updated on | updated",
        resolved_at="resolved at.value | resolved at | resolved | closed at.value | closed at | closed",
    ),
    nothing=frozenset({"?"}),
    markup=Markup.HTML,
    caps=(10_000,),
)
_SENTRY = Preset(
    name="sentry",
    source="sentry",
    signatures=signatures(
        "id | short id | title | culprit | permalink | first seen",
        "id | short id | title | level",
        "id | title | culprit | level",
        "id | title | level | first seen | last seen",
        "id | title | level | timestamp",
        "issue.id | title | level",
    ),
    columns=columns(
        external_id="id | issue.id",
        key="short id | issue",
        title="title",
        description="metadata.value | message",
        type="metadata.type | issue type | type",
        status="status",
        priority="priority",
        severity="level",
        assignee="assigned to.name | assigned to",
        components="culprit",
        project="project.slug | project.name | project",
        environment="environment",
        stack_trace="stacktrace | stack trace",
        url="permalink",
        source_created_at="first seen | timestamp",
        source_updated_at="last seen",
    ),
    caps=(100,),
)
_GITHUB = Preset(
    name="github",
    source="github",
    signatures=signatures(
        "number | title | state | url",
        "number | title | state | created at",
        "number | title | body | created at",
        "number | title | html url | user",
        "number | title | html url | user.login",
    ),
    columns=columns(
        # Numbers begin anew in every repository, and files of several may be imported under one label.
        external_id="html url | url | number",
        key="number",
        title="title",
        description="body",
        type="issue type.name | issue type | type.name | type",
        status="state",
        assignee="assignees | assignee.login | assignee",
        reporter="author.login | user.login | author | user",
        labels="labels",
        project="repository.name with owner | repository.full name | repository.name | repository",
        sprint="milestone.title | milestone",
        url="html url | url",
        resolution="state reason",
        source_created_at="created at",
        source_updated_at="updated at",
        resolved_at="closed at",
    ),
    separators={"labels": ","},
    # GitHub lists pull requests among the issues.
    marks={"pull_request": "Pull request"},
    caps=(30, 100, 1_000),
)
_AZURE_DEVOPS = Preset(
    name="azure_devops",
    source="azure_devops",
    signatures=signatures("id | work item type | title", "id | work item type | title 1"),
    columns=columns(
        external_id="id",
        key="id",
        # Tree queries indent by column: a child has its title in `Title 2`, the others are empty.
        title="title | title 1 | title 2 | title 3 | title 4 | title 5 | title 6",
        description="description | repro steps",
        type="work item type",
        status="state",
        priority="priority",
        severity="severity",
        assignee="assigned to",
        reporter="created by",
        labels="tags",
        components="area path",
        project="team project",
        parent="parent",
        sprint="iteration path",
        environment="system info | found in environment",
        # No estimate: the original one is in hours or days, which the file does not say.
        due_on="due date | target date",
        resolution="resolved reason | reason",
        story_points="story points | effort | size",
        source_created_at="created date",
        source_updated_at="changed date",
        resolved_at="closed date | resolved date",
    ),
    separators={"labels": ";"},
    markup=Markup.HTML,
    caps=(1_000, 10_000, 20_000),
)
_BUGZILLA = Preset(
    name="bugzilla",
    source="bugzilla",
    signatures=signatures("bug id | short desc", "bug id | summary", "id | summary | creation time | last change time"),
    columns=columns(
        external_id="bug id | id",
        key="bug id | id",
        title="short desc | summary",
        description="description | longdesc",
        type="bug type | type",
        status="bug status | status",
        priority="priority",
        severity="bug severity | severity",
        assignee="assigned to realname | assigned to detail.real name | assigned to | assignee",
        reporter="reporter realname | creator detail.real name | reporter | creator",
        labels="keywords",
        components="component",
        project="product",
        sprint="target milestone",
        environment="op sys | os | rep platform | platform",
        due_on="deadline",
        resolution="resolution",
        source_created_at="opendate | opened | creation time | creation ts",
        source_updated_at="changeddate | changed | last change time | delta ts",
        resolved_at="cf last resolved | last resolved",
    ),
    separators={"labels": ","},
    nothing=frozenset({"---"}),
    caps=(10_000,),
)
_LINEAR = Preset(
    name="linear",
    source="linear",
    signatures=signatures(
        "id | team | title | status | creator",
        "id | team | title | status | cycle name | creator",
        "identifier | title | created at | url",
        "identifier | title | created at | state",
    ),
    columns=columns(
        external_id="identifier | id",
        key="identifier | id",
        title="title",
        description="description",
        status="status | state.name | state",
        priority="priority label | priority",
        assignee="assignee.name | assignee",
        reporter="creator.name | creator",
        labels="labels.nodes | labels",
        components="team.name | team",
        project="project.name | project",
        parent="parent issue | parent.identifier | parent",
        sprint="cycle name | cycle.name | cycle number | cycle.number",
        url="url",
        due_on="due date",
        story_points="estimate",
        source_created_at="created | created at",
        source_updated_at="updated | updated at",
        resolved_at="completed | completed at",
    ),
    separators={"labels": ","},
)

PRESETS: tuple[Preset, ...] = (
    *(TEMPLATE, _JIRA, _JIRA_SERVER, _GITLAB, _SERVICENOW, _SENTRY),
    *(_GITHUB, _AZURE_DEVOPS, _BUGZILLA, _LINEAR, GENERIC),
)


def recognize(headers: Sequence[str]) -> Preset:
    """The preset with the longest signature among the headers, or the generic one."""
    there = {normalize_header(header) for header in headers}
    return max(PRESETS, key=lambda preset: max(len(names) if names <= there else -1 for names in preset.signatures))
