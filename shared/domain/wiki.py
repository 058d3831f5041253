"""Jira's wiki markup as Markdown, line by line; code stays as it is.

https://jira.atlassian.com/secure/WikiRendererHelpAction.jspa?section=all
"""

import re

_BLOCK = re.compile(r"\{(code|noformat)(?::([^}\n]{0,200}))?\}", re.IGNORECASE)
_HEADING = re.compile(r"h([1-6])\.\s+")
_BULLETS = re.compile(r"([*#-]{1,8})\s+")
_LINK = re.compile(r"\[(?:([^|\[\]\n]{1,500})\|)?([^|\[\]\n]{1,2000})(?:\|[^|\[\]\n]{0,100})?\]")
_IMAGE = re.compile(r"!([^\s!|][^!|\n]{0,300}\.\w{2,5})(?:\|[^!\n]{0,200})?!")
_COLOR = re.compile(r"\{color(?::[^}\n]{0,40})?\}", re.IGNORECASE)
_MONO = re.compile(r"\{\{([^}\n]{1,2000}?)\}\}")
_PANEL = re.compile(r"\{(panel|info|note|tip|warning)(?::([^}\n]{0,300}))?\}", re.IGNORECASE)
_TITLE = re.compile(r"(?:^|\|)title=([^|]{1,200})")
_LANGUAGE = re.compile(r"(?:^|\|)(?:language=)?([A-Za-z0-9+#-]{1,20})(?=\||$)")
# A mark has to begin behind a blank or a sign and end before one: 2*3*4 is no bold 3.
_EDGES = r"(?<![\w*_+~?^-]){0}(?=\S)([^\n{0}]{{1,2000}}?)(?<=\S){0}(?![\w*_+~?^-])"
_MARKS = [
    (re.compile(_EDGES.format(re.escape("*"))), r"**\1**"),
    (re.compile(_EDGES.format(re.escape("_"))), r"_\1_"),
    (re.compile(_EDGES.format(re.escape("-"))), r"~~\1~~"),
    (re.compile(_EDGES.format(re.escape("+"))), r"\1"),
    (re.compile(r"(?<!\w)\?\?(?=\S)([^\n?]{1,2000}?)\?\?(?!\w)"), r"_\1_"),
]
# What Jira's editor writes where a mark stands inside a word, or next to a sign.
_BRACED = re.compile(r"\{([*_+^~-])\}(?=\S)([^\n]{1,2000}?)\{\1\}")
_BRACED_MARKS = {"*": "**", "_": "_", "-": "~~", "+": "", "^": "", "~": ""}
_CELL = re.compile(r"(\|\|?)([^|]*)")
_ESCAPED = re.compile(r"\\([*_\-+{}\[\]!|^~?])")
_KEPT = "\ue000{}\ue001"


def wiki_to_markdown(text: str) -> str:
    """Wiki markup as Markdown; what is not markup stays."""
    text = re.sub("[\ue000-\ue003]", "", text.replace("\r\n", "\n").replace("\r", "\n"))
    parts: list[str] = []
    while (opening := _BLOCK.search(text)) is not None:
        closing = re.compile(rf"\{{{opening[1]}\}}", re.IGNORECASE).search(text, opening.end())
        if closing is None:
            break
        parts.append(_prose(text[: opening.start()]))
        parts.append(_fenced(text[opening.end() : closing.start()], opening[2] or ""))
        text = text[closing.end() :]
    parts.append(_prose(text))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(filter(None, parts))).strip()


def _fenced(code: str, options: str) -> str:
    language = _LANGUAGE.search(options)
    title = _TITLE.search(options)
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    head = f"**{title[1]}**\n\n" if title else ""
    return f"\n{head}{fence}{language[1] if language else ''}\n{code.strip(chr(10))}\n{fence}\n"


def _prose(text: str) -> str:
    lines: list[str] = []
    quoting = False
    for line in text.split("\n"):
        pieces = re.split(r"\{quote\}", line, flags=re.IGNORECASE)
        for index, piece in enumerate(pieces):
            if index:
                quoting = not quoting
            if piece.strip() or len(pieces) == 1:
                lines.append(f"> {_line(piece)}".rstrip() if quoting else _line(piece))
    return "\n".join(_with_table_rules(lines))


def _line(line: str) -> str:
    stripped = line.strip()
    if re.fullmatch(r"-{4,5}", stripped):
        return "---"
    if heading := _HEADING.match(stripped):
        return f"{'#' * int(heading[1])} {_inline(stripped[heading.end() :])}"
    if stripped.startswith("bq. "):
        return f"> {_inline(stripped[4:])}"
    if stripped.startswith("|"):
        return _row(stripped)
    if bullets := _BULLETS.match(stripped):
        marks = bullets[1]
        marker = "1. " if marks[-1] == "#" else "- "
        return f"{'   ' * (len(marks) - 1)}{marker}{_inline(stripped[bullets.end() :])}"
    return _inline(line)


def _row(line: str) -> str:
    """A table's row. What may hold bars of its own is turned first; a single head among other cells is bold."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(_inline(found[0]).replace("|", "\\|"))
        return f"\ue002{len(kept) - 1}\ue003"

    bare = _LINK.sub(keep, _IMAGE.sub(keep, _MONO.sub(keep, _ESCAPED.sub(keep, line))))
    cells = [(bars, _inline(cell.strip())) for bars, cell in _CELL.findall(bare)]
    if len(cells) > 1 and not cells[-1][1]:
        cells.pop()
    head = all(bars == "||" for bars, _ in cells)
    texts = [f"**{cell}**" if bars == "||" and cell and not head else cell for bars, cell in cells]
    text = re.sub(r"\ue002(\d{1,6})\ue003", lambda found: _of(kept, int(found[1])), f"| {' | '.join(texts)} |")
    return f"{text}\n|{' --- |' * len(cells)}" if head else text


def _of(kept: list[str], index: int) -> str:
    return kept[index] if index < len(kept) else ""


def _with_table_rules(lines: list[str]) -> list[str]:
    """Markdown knows no table without a head: one is put before rows that have none."""
    done: list[str] = []
    in_table = False
    for line in lines:
        row = line.startswith("| ")
        if row and not in_table and "\n" not in line:
            width = line.count(" | ") + 1
            done += [f"|{'  |' * width}", f"|{' --- |' * width}"]
        in_table = row
        done.append(line)
    return done


def _inline(text: str) -> str:
    kept: list[str] = []

    def keep(value: str) -> str:
        kept.append(value)
        return _KEPT.format(len(kept) - 1)

    text = _ESCAPED.sub(lambda found: keep(found[1]), text)
    text = _MONO.sub(lambda found: keep(f"`{found[1]}`"), text)
    text = _IMAGE.sub(lambda found: keep(f"![{found[1]}]({found[1]})"), text)
    text = _LINK.sub(lambda found: keep(_link(found)), text)
    text = _COLOR.sub("", text)
    text = _PANEL.sub(_panel, text)
    text = _BRACED.sub(_marked, text)
    for mark, replacement in _MARKS:
        text = mark.sub(replacement, text)
    text = re.sub(r"\\\\(?=\s|$)", "  \n", text)
    return re.sub(r"\ue000(\d{1,6})\ue001", lambda found: _of(kept, int(found[1])), text)


def _marked(found: re.Match[str]) -> str:
    mark = _BRACED_MARKS[found[1]]
    return f"{mark}{found[2].rstrip()}{mark}{found[2][len(found[2].rstrip()) :]}"


def _link(found: re.Match[str]) -> str:
    label, target = found[1], found[2]
    if target.startswith("~"):
        return f"@{target[1:].removeprefix('accountid:')}"
    if label:
        return f"[{label}]({target})"
    if re.match(r"(?:https?|ftp|mailto|file):", target):
        return f"<{target}>"
    return f"[{target.lstrip('^#')}]" if target.startswith(("^", "#")) else found[0]


def _panel(found: re.Match[str]) -> str:
    title = _TITLE.search(found[2] or "")
    return f"**{title[1]}**" if title else ""
