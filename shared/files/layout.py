"""How one file is to be read: decided once, stored with the job, obeyed by every batch."""

from enum import StrEnum
from hashlib import blake2b

from pydantic import BaseModel, ConfigDict, Field

from shared.domain.job import DateOrder, Kind

# Part of every record hash: raise it when normalization changes, so that the next import reads every record anew.
NORMALIZATION = 2
DATE_FIELDS = ("source_created_at", "source_updated_at", "resolved_at", "due_on")
RESERVED_COLUMNS = ("_rejection_id", "_row", "_reason", "_hint")


class Format(StrEnum):
    CSV = "csv"
    NDJSON = "ndjson"  # one JSON object a line; arrays are rewritten to it


class Layout(BaseModel):
    """Everything a batch needs to turn its byte range into records."""

    model_config = ConfigDict(frozen=True)

    format: Format
    kind: Kind = Kind.ISSUES
    encoding: str = "utf-8"
    delimiter: str = ","
    escaped: bool = Field(default=False, description='Quotes inside quotes are written \\" instead of doubled')
    header: tuple[str, ...] = Field(
        default=(), description="Column names as the file spells them, repeated ones repeated"
    )
    data_offset: int = 0
    first_row: int = Field(default=1, description="The row a spreadsheet shows for the first record")
    preset: str = "generic"
    source: str = Field(
        default="csv", description="The kind of system the records come from, as far as the preset tells"
    )
    columns: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Field → columns it is read from (names for JSON, header spelling for CSV)"
    )
    date_order: DateOrder | None = None
    ambiguous_dates: bool = Field(
        default=False, description="Numeric dates were seen, and nobody said which part is the day"
    )
    other_encoding: str | None = Field(
        default=None,
        description="How single rows are read that are not in the encoding, which the first bytes left open",
    )
    rewrite: bool = Field(
        default=False, description="A copy has to be made in which records can be found by their bytes"
    )
    original_encoding: str = Field(default="utf-8", description="Of the file before it was rewritten")
    json_prefix: str | None = Field(default=None, description="Where the array lies in the document, in ijson's words")
    warnings: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        """Key of the record hashes: equal bytes hash alike only where they mean the same."""
        meaning = self.model_dump_json(
            exclude={
                "data_offset",
                "first_row",
                "warnings",
                "ambiguous_dates",
                "other_encoding",
                "rewrite",
                "original_encoding",
                "json_prefix",
            }
        )
        return blake2b(f"{NORMALIZATION}{meaning}".encode(), digest_size=32).digest()

    def indices(self, field: str) -> tuple[int, ...]:
        """Positions in the CSV header of the columns a field is read from, the preferred column first."""
        wanted = self.columns.get(field, ())
        return tuple(index for column in wanted for index, name in enumerate(self.header) if name == column)
