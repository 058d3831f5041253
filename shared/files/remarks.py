"""What is odd about rows that are stored all the same: counted while they are read, told in a job's warnings."""

from dataclasses import asdict, dataclass


@dataclass
class Remarks:
    """Numbers of rows."""

    short: int = 0  # fewer cells than the header
    recoded: int = 0  # in another encoding than the file

    def to_counts(self) -> dict[str, int]:
        """Those that are not zero."""
        return {name: count for name, count in asdict(self).items() if count}

    def sentences(self, other_encoding: str | None) -> list[str]:
        """For people."""
        told: list[str] = []
        if self.short:
            told.append(
                f"{_rows(self.short)} fewer cells than the header; the missing ones count as empty. If cells look "
                "shifted, a quote or a delimiter is missing"
            )
        if self.recoded:
            told.append(
                f"{_rows(self.recoded)} bytes that are no UTF-8 and were read as {other_encoding}; "
                "set encoding if letters look wrong"
            )
        return told


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"
