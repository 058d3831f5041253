"""Stack traces that people paste into descriptions."""

import re
from collections.abc import Sequence

_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL)
_TRACE_LINE = re.compile(
    r"""
    Traceback\ \(most\ recent\ call\ last\)         # Python
    | ^\s*File\ ".+",\ line\ \d+                    # Python
    | ^\s*at\ \S.*\(.*:\d+(:\d+)?\)\s*$             # Java, JavaScript
    | ^\s*at\ .+\ in\ .+:line\ \d+                  # .NET
    | ^\s*at\ \S+:\d+:\d+\s*$                       # JavaScript without names
    | ^\s*from\ .+:\d+:in\                          # Ruby
    | ^\#\d+\s+.+(\(\d+\)|:\d+)                     # PHP, native debuggers
    | ^goroutine\ \d+\ \[                           # Go
    | ^thread\ '.*'\ panicked\ at                   # Rust
    | ^Caused\ by:\ [\w.$]+                         # Java
    """,
    re.VERBOSE | re.MULTILINE,
)


# Outside of code only lines that hardly anything else looks like, and at least two of them.
_FRAME = re.compile(
    r"""
    \s*File\ ".+",\ line\ \d+
    | \s*at\ \S.*\(.*:\d+(:\d+)?\)\s*$
    | \s*at\ .+\ in\ .+:line\ \d+
    | \s*from\ .+:\d+:in\b
    """,
    re.VERBOSE,
)
_BETWEEN_FRAMES = re.compile(r"\s*$|\s+\S|Caused\ by:|\.\.\.\ \d+\ (?:more|common)")
_PYTHON = "Traceback (most recent call last)"
_FEWEST_FRAMES = 2
# A longer line is no frame, and looking through it could take long.
_LONGEST_FRAME = 1_000


def find_stack_trace(text: str) -> str | None:
    """The first code block of a Markdown text that looks like a stack trace, else the first such lines."""
    blocks = (found["code"].strip("\n") for found in _FENCE.finditer(text))
    found = next((block for block in blocks if _TRACE_LINE.search(block)), None)
    return found or _pasted(_FENCE.sub("", text).splitlines())


def _is_frame(line: str) -> bool:
    return len(line) <= _LONGEST_FRAME and _FRAME.match(line) is not None


def _pasted(lines: Sequence[str]) -> str | None:
    """A stack trace between other lines, from the line above its first frame."""
    first = next((number for number, line in enumerate(lines) if _is_frame(line)), None)
    if first is None:
        return None
    above = next((number for number in range(first - 1, -1, -1) if lines[number].strip()), first)
    python = lines[above].startswith(_PYTHON)
    last, frames = first, 0
    for number, line in enumerate(lines[first:], first):
        if _is_frame(line):
            last, frames = number, frames + 1
        elif not _BETWEEN_FRAMES.match(line):
            # Python says what happened in the line below.
            last = number if python else last
            break
    if frames < _FEWEST_FRAMES and not python:
        return None
    return "\n".join(line.rstrip() for line in lines[above : last + 1] if line.strip())
