"""Words people use for our fields in five languages, and the two presets made of them: our template, and any table."""

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.files.preset import Preset, columns, signatures

_DERIVED = frozenset({"payload", "status_category"})
_SYNONYMS = columns(
    external_id="external id | issue key | issue id | ticket id | bug id | defect id | incident id | case id | key | id"
    " | number | ticket number | incident number | case number | ticket | nummer | ticketnummer | numéro | número",
    key="key | issue key | short id | identifier",
    title="title | summary | subject | short description | headline | issue title | name | task | titel | betreff"
    " | zusammenfassung | titre | objet | título | titulo | resumen | resumo | asunto | assunto",
    description="description | body | details | content | text | beschreibung | descripción | descrição",
    type="type | issue type | ticket type | kind | category | typ | vorgangstyp | tipo | art",
    status="status | state | issue status | ticket status | estado | statut | zustand | état",
    priority="priority | prio | urgency | priorität | prioridad | priorité | prioridade",
    severity="severity | level | impact | schweregrad | severidad | gravité | severidade",
    assignee="assignee | assigned to | assignee name | owner | responsible | zuständig | bearbeiter | responsable"
    " | responsável | asignado a",
    reporter="reporter | author | created by | creator | reported by | submitter | requester | opened by | melder"
    " | ersteller | autor | rapporteur",
    labels="labels | label | tags | tag | keywords | etiketten | schlagwörter | etiquetas | étiquettes",
    components="components | component | module | area | komponente | komponenten | componente | composant",
    project="project | project name | product | application | projekt | proyecto | projet | projeto",
    parent="parent | parent id | parent key | epic | epic link",
    sprint="sprint | iteration | cycle | milestone",
    environment="environment | env | platform | umgebung | entorno | environnement | ambiente",
    stack_trace="stack trace | stacktrace | traceback | backtrace",
    url="url | link | html url | web url | permalink",
    due_on="due on | due date | due | deadline | target date | fällig am | fälligkeitsdatum | fecha de vencimiento"
    " | échéance | data limite",
    resolution="resolution | resolution code | close code | lösung | resolución | résolution | resolução",
    story_points="story points | story point estimate | points | estimate points | weight",
    estimate_seconds="estimate seconds | original estimate | time estimate",
    source_created_at="source created at | created at | created | created on | created date | date created"
    " | creation date | opened at | opened | open date | reported on | first seen | timestamp | date | erstellt"
    " | erstellt am | angelegt am | creado | fecha de creación | créé le | date de création | criado em"
    " | data de criação",
    source_updated_at="source updated at | updated at | updated | updated on | updated date | last updated | modified"
    " | modified at | last modified | changed | changed date | last seen | geändert | geändert am | aktualisiert"
    " | actualizado | mis à jour le | atualizado em",
    resolved_at="resolved at | resolved | resolved on | resolved date | resolution date | closed at | closed"
    " | closed on | closed date | completed at | completed | finished date | gelöst am | geschlossen am | resuelto"
    " | résolu le | resolvido em",
    name="name | project name | project | title | full name | name with owner | projekt | nombre | nom | nome",
    repository_url="repository url | repository | repo url | repo | html url | http url to repo | web url | clone url"
    " | git url | url",
    owner="owner | owner.login | maintainer | lead | project lead | team | besitzer | responsable | responsável",
)
TEMPLATE = Preset(
    name="template",
    source="template",
    signatures=signatures("external id | title", "external id | name", "name | repository url"),
    columns={
        # A row without an id of ours is told so; the id must not come from whatever other column looks like one.
        name: tuple(dict.fromkeys((name.replace("_", " "), *(() if name == "external_id" else _SYNONYMS[name]))))
        for name in dict.fromkeys((*ISSUE_FIELDS, *PROJECT_FIELDS))
        if name not in _DERIVED
    },
    separators={"labels": ",", "components": ","},
    # Of columns we only guess at, the next best one may mean something else.
    fallback=False,
)
GENERIC = Preset(
    name="generic",
    source="generic",
    signatures=(frozenset(),),
    columns=_SYNONYMS,
    separators={"labels": ",", "components": ","},
    # Of columns we only guess at, the next best one may mean something else.
    fallback=False,
)
