"""What people paste into descriptions: stack traces, and what they ran.

Texts come from anybody, so everything here takes time in proportion to a text's length: line by line, and of a long
line only its beginning.
"""

import re
from collections.abc import Iterator, Sequence

_MOST_OF_A_LINE = 300
_MOST_PAIRS = 40
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
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
    re.VERBOSE,
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
# One of these is in every frame and every fence; most texts have none, and are not looked at line by line.
_HINT = re.compile(r"```|~~~|:\d|line \d")
_BETWEEN_FRAMES = re.compile(r"\s*$|\s+\S|Caused\ by:|\.\.\.\ \d+\ (?:more|common)")
_PYTHON = "Traceback (most recent call last)"
_FEWEST_FRAMES = 2
_HEADING = re.compile(r"#{1,6}[ \t]+(?P<hashed>.+)|\*\*(?P<bold>[^*]+)\*\*:?[ \t]*$")
_ENVIRONMENT = re.compile(
    r"((your|my) )?(environment( (info|information|details))?|system info(rmation)?)", re.IGNORECASE
)
_PAIR = re.compile(r"(?:[-*+] +)?(?P<name>\w[\w ./()-]{0,59}): *(?P<value>\S.*)")
# What GitHub's issue forms write where nothing was filled in.
_NOTHING = "_No response_"


def find_stack_trace(text: str) -> str | None:
    """The first code block of a Markdown text that looks like a stack trace, else the first such lines outside."""
    if not _HINT.search(text):
        return None
    blocks, outside = _split(text)
    for block in blocks:
        if any(_TRACE_LINE.search(line[:_MOST_OF_A_LINE]) for line in block):
            return "\n".join(block).strip("\n")
    return _pasted(outside)


def find_environment(text: str) -> dict[str, str] | None:
    """What stands under the heading "Environment" of a bug report: `name: value` lines, the rest as `description`."""
    found: dict[str, str] = {}
    rest: list[str] = []
    for line in _environment_lines(text):
        # Bold names: `**OS:** Windows 11` and `- **OS**: Windows 11`.
        pair = _PAIR.fullmatch(line[:_MOST_OF_A_LINE].replace("**", "").strip())
        if pair and len(found) < _MOST_PAIRS:
            found.setdefault(pair["name"].strip(), pair["value"])
        elif line.strip() and line.strip() != _NOTHING:
            rest.append(line.rstrip())
    return {**found, **({"description": "\n".join(rest)} if rest else {})} or None


def _split(text: str) -> tuple[list[list[str]], list[str]]:
    """The lines of each fenced code block, and those outside; a block that is not closed goes on to the end."""
    fence = ""
    blocks: list[list[str]] = []
    outside: list[str] = []
    for line in text.splitlines():
        if fence:
            if _closes(line, fence):
                fence = ""
            else:
                blocks[-1].append(line)
        elif opened := _FENCE.match(line):
            fence = opened[1]
            blocks.append([])
        else:
            outside.append(line)
    return blocks, outside


def _closes(line: str, fence: str) -> bool:
    marks = line.strip()
    return len(marks) >= len(fence) and not marks.strip(fence[0])


def _environment_lines(text: str) -> Iterator[str]:
    """The lines between the heading and the next one."""
    inside = False
    fence = ""
    for line in text.splitlines():
        if fence:
            fence = "" if _closes(line, fence) else fence
        elif opened := _FENCE.match(line):
            fence = opened[1]
        elif heading := _HEADING.match(line[:_MOST_OF_A_LINE]):
            if inside:
                return
            title = (heading["hashed"] or heading["bold"]).strip(" \t#*:")
            inside = _ENVIRONMENT.fullmatch(title) is not None
            continue
        if inside and not _FENCE.match(line):
            yield line


def _is_frame(line: str) -> bool:
    return len(line) <= _MOST_OF_A_LINE and _FRAME.match(line) is not None


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
