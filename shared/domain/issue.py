"""The normalized issue: its columns, and the rules that fold every tracker's words into ours."""

import re
from enum import StrEnum


class StatusCategory(StrEnum):
    OPEN = "open"
    IN_PROGRESS = "in_progress"
    DONE = "done"


class Severity(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


# The order is that of every COPY; values travel as PostgreSQL text or None, the payload behind them.
ISSUE_FIELDS: tuple[str, ...] = (
    "external_id",
    "key",
    "title",
    "description",
    "type",
    "status",
    "status_category",
    "priority",
    "severity",
    "assignee",
    "reporter",
    "labels",
    "components",
    "project",
    "parent",
    "sprint",
    "environment",
    "stack_trace",
    "url",
    "due_on",
    "resolution",
    "story_points",
    "estimate_seconds",
    "source_created_at",
    "source_updated_at",
    "resolved_at",
)

PROJECT_FIELDS: tuple[str, ...] = (
    "external_id",
    "name",
    "repository_url",
    "description",
    "owner",
    "source_created_at",
    "source_updated_at",
)

_IN_PROGRESS = frozenset(
    {
        *(
            "in progress",
            "in_progress",
            "in review",
            "review",
            "in development",
            "developing",
            "testing",
            "in test",
            "qa",
        ),
        *("code review", "ready for review", "blocked", "on hold", "work in progress", "wip", "active", "committed"),
        *("assigned", "started", "pending", "awaiting", "waiting", "reopened", "awaiting caller", "awaiting user info"),
        *("awaiting problem", "awaiting vendor"),
        *("en curso", "en progreso", "en revisión", "in arbeit", "in bearbeitung", "wartend", "en cours", "en attente"),
        *("em andamento", "em progresso", "em revisão"),
    }
)
_DONE = frozenset(
    {
        *(
            "done",
            "closed",
            "resolved",
            "fixed",
            "complete",
            "completed",
            "merged",
            "cancelled",
            "canceled",
            "rejected",
        ),
        *("won't fix", "wontfix", "won't do", "duplicate", "verified", "removed", "released", "deployed", "finished"),
        *(
            "closed complete",
            "closed incomplete",
            "closed skipped",
            "closed_duplicate",
            "ignored",
            "archived",
            "shipped",
        ),
        *("invalid", "worksforme"),
        *("erledigt", "fertig", "geschlossen", "gelöst", "abgeschlossen", "behoben", "abgelehnt"),
        *("cerrado", "cerrada", "resuelto", "resuelta", "finalizado", "finalizada", "hecho", "listo"),
        *("fermé", "fermée", "terminé", "terminée", "résolu", "résolue", "clos"),
        *("fechado", "fechada", "concluído", "concluída", "resolvido", "resolvida", "feito"),
    }
)
_OPEN = frozenset(
    {"open", "opened", "new", "to do", "todo", "backlog", "unconfirmed", "triage", "unresolved", "proposed", "draft"}
)
_SEVERITY = {
    Severity.CRITICAL: {
        *("critical", "blocker", "highest", "p0", "p1", "1", "1 - critical", "urgent", "fatal", "emergency"),
        *("sev0", "sev1", "s0", "s1", "showstopper"),
    },
    Severity.HIGH: {"high", "major", "p2", "2", "2 - high", "error", "sev2", "s2", "important"},
    Severity.MEDIUM: {
        *("medium", "normal", "moderate", "p3", "3", "3 - moderate", "3 - medium", "warning", "sev3", "s3", "average"),
        "default",
    },
    Severity.LOW: {
        *("low", "minor", "trivial", "lowest", "p4", "p5", "4", "5", "4 - low", "5 - planning", "info", "debug"),
        *("sev4", "sev5", "s4", "s5", "enhancement", "no priority", "none"),
    },
}
# `Sev 2`, `Priority 2 (High)`; `2 - Important`, whose number counts where the word is none we know.
_RANK = re.compile(r"(?P<kind>s|sev|severity|p|prio|priority)[\s_:-]*(?P<rank>[0-5])(?:\s*[-:(].*)?")
_NUMBERED = re.compile(r"(?P<rank>[0-5])\s*[-:]\s*(?P<word>\D.*)")
_SEVERITY_OF = {word: severity for severity, words in _SEVERITY.items() for word in words}


def status_category(status: str) -> StatusCategory:
    """Fold a status as sent into open, in_progress or done; an unknown word is open, because nothing says otherwise."""
    word = status.strip().lower()
    if word in _DONE:
        return StatusCategory.DONE
    if word in _IN_PROGRESS:
        return StatusCategory.IN_PROGRESS
    return StatusCategory.OPEN


def is_known_status(status: str) -> bool:
    """Whether the word itself says how far an issue is; of others a resolution date knows more."""
    word = status.strip().lower()
    return word in _OPEN or word in _IN_PROGRESS or word in _DONE


def severity_of(priority: str) -> Severity | None:
    """Fold a priority as sent into a severity, or None where the word is unknown."""
    word = priority.strip().lower()
    if word in _SEVERITY_OF:
        return _SEVERITY_OF[word]
    if found := _RANK.fullmatch(word):
        return _SEVERITY_OF[("sev" if found["kind"].startswith("s") else "p") + found["rank"]]
    found = _NUMBERED.fullmatch(word)
    return _SEVERITY_OF.get(found["word"]) or _SEVERITY_OF.get(found["rank"]) if found else None
