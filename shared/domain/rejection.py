"""A record that failed validation, and why."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class RejectionState(StrEnum):
    OPEN = "open"
    REPLAYED = "replayed"  # handed to a later job, which stored it or rejected it anew
    DISMISSED = "dismissed"


class Problem(BaseModel):
    """One thing wrong with one record: where it is, what was found and what to do."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="Stable word for the kind of problem", examples=["missing_title"])
    column: str | None = Field(
        default=None, description="Column or JSON key as the file spells it", examples=["Summary"]
    )
    value: str | None = Field(
        default=None, description="The value found, cut at 200 characters", examples=["32/13/2025"]
    )
    reason: str = Field(description="What is wrong", examples=["The title is empty"])
    hint: str = Field(description="How to mend it", examples=["Fill the Summary column"])
