"""Which converter reads which field of a file."""

from shared.domain.issue import ISSUE_FIELDS, PROJECT_FIELDS
from shared.files import fields
from shared.files.addresses import without_credentials
from shared.files.dates import DateReader
from shared.files.fields import Convert
from shared.files.layout import Layout
from shared.files.preset import Preset


def converters(layout: Layout, preset: Preset) -> dict[str, Convert]:
    """Field → converter, for the fields of both kinds."""
    dates = DateReader(layout.date_order)
    word, body = fields.text(fields.MAX_WORD_CHARS), fields.text(fields.MAX_TEXT_CHARS)
    point = fields.timestamp(dates)
    address = fields.text(fields.MAX_TITLE_CHARS * 2)
    return {
        **dict.fromkeys((*ISSUE_FIELDS, *PROJECT_FIELDS), word),
        "title": fields.text(fields.MAX_TITLE_CHARS),
        "description": fields.described(preset.markup),
        "assignee": fields.person,
        "reporter": fields.person,
        "sprint": fields.latest(word),
        "stack_trace": body,
        "labels": fields.items(preset.separators.get("labels")),
        "components": fields.items(preset.separators.get("components")),
        "environment": fields.details,
        "url": fields.link,
        "repository_url": lambda cell: without_credentials(address(cell) or "") or None,
        "due_on": fields.day(dates),
        "story_points": fields.number,
        "estimate_seconds": fields.seconds,
        "source_created_at": point,
        "source_updated_at": point,
        "resolved_at": point,
    }
