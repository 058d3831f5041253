"""By what a record is known: its id, or of a project its repository and name."""

from collections.abc import Callable, Mapping
from typing import Any

from shared.domain.job import Kind
from shared.files import fields
from shared.files.addresses import repository_identity
from shared.files.cells import Places
from shared.files.layout import Format, Layout
from shared.files.recode import recode_cell

Identify = Callable[[Any], str | None]


def identity_finder(layout: Layout, columns: Mapping[str, Places], nothing: frozenset[str]) -> Identify:
    """A function that gives the id of a record's content, None where there is none; it may raise FieldError."""
    if layout.kind is Kind.PROJECTS:
        return _of_project(columns["name"], columns["repository_url"])
    places = columns["external_id"]
    if layout.format is not Format.CSV:
        return lambda content: fields.identity(places.cell(content)) if content else None

    def find(content: Any) -> str | None:
        for index in places.indices:
            cell = content[index] if index < len(content) else ""
            if cell and (found := fields.identity(recode_cell(cell, layout.other_encoding))):
                return None if found in nothing else found
        return None

    return find


def _of_project(name: Places, repository_url: Places) -> Identify:
    """A project is known by its repository and its name, however the address was spelled."""

    def find(content: Any) -> str | None:
        if not content:
            return None
        word = fields.text(fields.MAX_WORD_CHARS)(name.cell(content))
        address = repository_url.cell(content)
        repository = repository_identity(address if isinstance(address, str) else "")
        return fields.identity(f"{repository}#{word}" if repository else word) if word else None

    return find
