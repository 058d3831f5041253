"""What pydantic says of bad input, in words that tell people who call an API what to do."""

from collections.abc import Mapping
from typing import Any


def complaint(error: Mapping[str, Any], *, example: str = "") -> str:
    """One error of a ValidationError in words; never what was sent, which may be a secret."""
    message = str(error["msg"])
    match error["type"]:
        case "value_error":
            return message.removeprefix("Value error, ")
        case "json_invalid":
            return "This is not JSON"
        case "tuple_type":
            return "Input should be a list"
        case "string_pattern_mismatch" if example:
            return f"Write it like {example}"
        # Secrets are counted as if they were lists.
        case "too_short" | "too_long" if error.get("ctx", {}).get("field_type") == "Value":
            least, most = error["ctx"].get("min_length"), error["ctx"].get("max_length")
            return f"Give at least {least} characters" if least else f"Give at most {most} characters"
        case _:
            return message
