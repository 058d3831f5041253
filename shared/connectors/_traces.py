"""Stack traces that people paste into descriptions."""

import re

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


def find_stack_trace(text: str) -> str | None:
    """The first code block of a Markdown text that looks like a stack trace."""
    blocks = (found["code"].strip("\n") for found in _FENCE.finditer(text))
    return next((block for block in blocks if _TRACE_LINE.search(block)), None)
