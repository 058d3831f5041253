"""The fields of a file upload, read into domain words."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, BinaryIO

import orjson
from fastapi import Depends, File, Form, Header, UploadFile
from pydantic import ValidationError

from functions.api.context import InContext
from functions.api.errors import LARGE_FILE_HINT
from functions.api.models import ImportSource
from shared.domain.errors import InvalidRequestError, TooLargeError
from shared.domain.job import DateOrder, Duplicates, ImportOptions, ImportRequest, Kind, Priority
from shared.services.accept_import import import_source_from

_LONGEST_NAME = 255
_CHUNK_BYTES = 1024 * 1024

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="A repeated call with the same key gets the first call's job",
        examples=["nightly-2025-03-31"],
    ),
]
FilePart = Annotated[UploadFile, File(description="CSV or JSON")]
OptionalFilePart = Annotated[UploadFile | None, File(description="The mended CSV or JSON")]
SourceField = Annotated[
    ImportSource | None,
    Form(description="Label of the records; by default made of the file's name", examples=["petrel-bugs"]),
]
PriorityField = Annotated[Priority | None, Form(description="Which jobs go first; by default normal")]


@dataclass(frozen=True)
class OptionFields:
    """The options a form names; what it leaves out is not in `given`."""

    given: Mapping[str, Any]

    def options(self) -> ImportOptions:
        """The options, with defaults for the rest."""
        return _validated(self.given)


def option_fields(
    kind: Annotated[Kind | None, Form(description="What the records are; by default issues")] = None,
    duplicates: Annotated[
        Duplicates | None,
        Form(description="`update` (default): the last valid row wins; `skip`: the first, and stored records stay"),
    ] = None,
    atomic: Annotated[bool | None, Form(description="Any rejection, and nothing is stored; by default false")] = None,
    mapping: Annotated[
        str | None,
        Form(
            max_length=20_000,
            description="JSON object: field → column of the file; overrides what was recognized",
            examples=['{"external_id": "Ticket no", "title": "Subject"}'],
        ),
    ] = None,
    date_order: Annotated[
        DateOrder | None, Form(description="How 03/04/2025 is read; by default the file as a whole decides")
    ] = None,
    encoding: Annotated[str | None, Form(description="By default detected", examples=["windows-1252"])] = None,
    delimiter: Annotated[
        str | None, Form(description="One character or `tab`; by default detected", examples=[";"])
    ] = None,
) -> OptionFields:
    """The fields that are options of an import."""
    fields = {
        "kind": kind,
        "duplicates": duplicates,
        "atomic": atomic,
        "mapping": None if mapping is None else _parse_mapping(mapping),
        "date_order": date_order,
        "encoding": encoding,
        "delimiter": delimiter,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    _validated(given)
    return OptionFields(given)


Options = Annotated[OptionFields, Depends(option_fields)]


def file_name(file: UploadFile) -> str:
    """The name a client gave its file, without folders and what no database takes."""
    name = (file.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in name if character.isprintable())
    return printable.strip()[-_LONGEST_NAME:] or "file"


def refuse_too_large(file: UploadFile, most_bytes: int) -> int:
    """The size of a file; TooLargeError above the limit of direct uploads."""
    size = file.size or 0
    if size > most_bytes:
        raise TooLargeError(f"The file has {size} bytes, more than {most_bytes}", hint=LARGE_FILE_HINT)
    return size


@dataclass(frozen=True)
class SentFile:
    """A file that came in a form, and what is to be done with it."""

    file: BinaryIO
    name: str
    size: int
    request: ImportRequest


def sent_file(
    context: InContext,
    file: FilePart,
    fields: Options,
    import_source: SourceField = None,
    priority: PriorityField = None,
    idempotency_key: IdempotencyKey = None,
) -> SentFile:
    """The file and the fields of an import form."""
    name = file_name(file)
    request = ImportRequest(
        file_name=name,
        import_source=import_source or import_source_from(name),
        options=fields.options(),
        priority=priority or Priority.NORMAL,
        idempotency_key=idempotency_key,
    )
    size = refuse_too_large(file, context.runtime.settings.max_request_bytes)
    return SentFile(file.file, name, size, request)


Sent = Annotated[SentFile, Depends(sent_file)]


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The whole file, a megabyte at a time."""
    file.seek(0)
    return iter(lambda: file.read(_CHUNK_BYTES), b"")


def _validated(given: Mapping[str, Any]) -> ImportOptions:
    try:
        return ImportOptions.model_validate(given)
    except ValidationError as error:
        fields = {".".join(map(str, each["loc"])): each["msg"] for each in error.errors()}
        raise InvalidRequestError("An option is not understood", fields=fields) from error


def _parse_mapping(text: str) -> dict[str, str]:
    try:
        mapping = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _bad_mapping() from error
    if not isinstance(mapping, dict) or not all(isinstance(column, str) for column in mapping.values()):
        raise _bad_mapping()
    if any("\0" in name + column for name, column in mapping.items()):
        raise _bad_mapping()
    return mapping


def _bad_mapping() -> InvalidRequestError:
    return InvalidRequestError(
        "The mapping is not a JSON object of texts",
        hint='Send it as {"title": "Summary"}: field → column',
        fields={"mapping": "must be a JSON object: field → column"},
    )
