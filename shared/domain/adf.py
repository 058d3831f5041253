"""Atlassian Document Format as Markdown, without ever losing text: what is unknown is walked through.

https://developer.atlassian.com/cloud/jira/platform/apis/document/structure/
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeIs, cast

# Deeper than any editor makes, shallower than Python's stack.
_MOST_DEPTH = 80
_PANELS = {"info": "Info", "note": "Note", "warning": "Warning", "error": "Error", "success": "Success", "tip": "Tip"}
_MARKS = {"strong": "**", "em": "_", "strike": "~~", "code": "`"}

Node = Mapping[str, Any]


def adf_to_markdown(node: dict[str, Any] | None) -> str:
    """A document, or any node of one, as Markdown; unknown nodes give their text."""
    if not node:
        return ""
    return re.sub(r"\n{3,}", "\n\n", _block(node, 0)).strip()


def _is_node(value: object) -> TypeIs[dict[str, Any]]:
    return isinstance(value, dict)


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _children(node: Node) -> list[dict[str, Any]]:
    return [each for each in _list(node.get("content")) if _is_node(each)]


def _attributes(node: Node) -> Node:
    found = node.get("attrs")
    return found if _is_node(found) else {}


def _block(node: Node, depth: int) -> str:
    """A node with the blank line that ends it."""
    if depth > _MOST_DEPTH:
        return _plain(node)
    kind = str(node.get("type", ""))
    if kind in _INLINE:
        return _inline(node, depth)
    render = _BLOCKS.get(kind)
    if render is not None:
        return render(node, depth)
    # An extension keeps what it shows to those who do not know it among its attributes.
    return _blocks(_children(node), depth) or _text(node) or str(_attributes(node).get("text") or "")


def _blocks(nodes: Sequence[Node], depth: int) -> str:
    parts: list[str] = []
    for node in nodes:
        inline = str(node.get("type", "")) in _INLINE
        part = _block(node, depth + 1)
        if parts and inline:
            parts[-1] += part
        else:
            parts.append(part)
    return "".join(part if part.endswith("\n") or not part else f"{part}\n\n" for part in parts)


def _paragraph(node: Node, depth: int) -> str:
    return f"{_line(node, depth)}\n\n"


def _line(node: Node, depth: int) -> str:
    return "".join(_block(child, depth + 1) for child in _children(node))


def _heading(node: Node, depth: int) -> str:
    level = _attributes(node).get("level")
    marks = "#" * (level if isinstance(level, int) and 1 <= level <= 6 else 1)
    return f"{marks} {_line(node, depth).strip()}\n\n"


def _bullets(node: Node, depth: int) -> str:
    return _items(node, depth, lambda _index, _item: "- ")


def _numbers(node: Node, depth: int) -> str:
    order = _attributes(node).get("order")
    first = order if isinstance(order, int) else 1
    return _items(node, depth, lambda index, _item: f"{first + index}. ")


def _tasks(node: Node, depth: int) -> str:
    def box(_index: int, item: Node) -> str:
        done = _attributes(item).get("state") in {"DONE", "DECIDED"}
        return "- [x] " if done else "- [ ] "

    return _items(node, depth, box)


def _items(node: Node, depth: int, marker: Callable[[int, Node], str]) -> str:
    lines: list[str] = []
    for index, item in enumerate(_children(node)):
        mark = marker(index, item)
        body = _blocks(_children(item), depth + 1).strip() or _text(item)
        # A list in a list follows its line at once.
        body = re.sub(r"\n\n(?=\s*(?:- |\d+\. ))", "\n", body)
        lines.append(mark + body.replace("\n", "\n" + " " * len(mark)))
    return "\n".join(lines) + "\n\n"


def _quote(node: Node, depth: int) -> str:
    return _quoted(_blocks(_children(node), depth))


def _panel(node: Node, depth: int) -> str:
    title = _PANELS.get(str(_attributes(node).get("panelType", "")), "Note")
    return _quoted(f"**{title}:** {_blocks(_children(node), depth)}")


def _quoted(text: str) -> str:
    lines = text.strip().split("\n")
    return "\n".join(f"> {line}".rstrip() for line in lines) + "\n\n"


def _code(node: Node, _depth: int) -> str:
    text = "".join(_text(child) for child in _children(node))
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{_attributes(node).get('language') or ''}\n{text}\n{fence}\n\n"


def _expand(node: Node, depth: int) -> str:
    title = str(_attributes(node).get("title") or "").strip()
    return (f"**{title}**\n\n" if title else "") + _blocks(_children(node), depth)


def _table(node: Node, depth: int) -> str:
    rows = [[_cell(cell, depth) for cell in _children(row) or [row]] for row in _children(node)]
    width = max((len(row) for row in rows), default=0)
    if not width:
        return ""
    lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
    lines.insert(1, f"|{' --- |' * width}")
    return "\n".join(lines) + "\n\n"


def _cell(node: Node, depth: int) -> str:
    parts = [_block(child, depth + 2).strip() for child in _children(node)] or [_text(node)]
    return "<br>".join(filter(None, parts)).replace("|", "\\|").replace("\n", "<br>")


def _media(node: Node, _depth: int) -> str:
    found = _attributes(node)
    name = str(found.get("alt") or found.get("__fileName") or found.get("filename") or found.get("id") or "attachment")
    url = found.get("url")
    return f"![{name}]({url})" if url else f"[{name}]"


def _card(node: Node, _depth: int) -> str:
    found = _attributes(node)
    data = found.get("data")
    url = found.get("url") or (data.get("url") or data.get("@id") if _is_node(data) else "")
    return f"<{url}>" if url else ""


def _mention(node: Node, _depth: int) -> str:
    found = _attributes(node)
    name = str(found.get("text") or found.get("id") or "")
    return name if name.startswith("@") else f"@{name}"


def _emoji(node: Node, _depth: int) -> str:
    found = _attributes(node)
    return str(found.get("text") or found.get("shortName") or "")


def _date(node: Node, _depth: int) -> str:
    stamp = str(_attributes(node).get("timestamp", ""))
    try:
        return f"{datetime.fromtimestamp(int(stamp) / 1000, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return stamp


def _status(node: Node, _depth: int) -> str:
    return str(_attributes(node).get("text", ""))


def _inline(node: Node, depth: int) -> str:
    return _INLINE[str(node.get("type"))](node, depth)


def _marked(node: Node, _depth: int) -> str:
    """Text with its marks. Blanks stay outside of them, since Markdown does not know `** so **`."""
    text = _text(node)
    inner = text.strip()
    if not inner:
        return text
    before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
    for mark in _list(node.get("marks")):
        if not _is_node(mark):
            continue
        kind = str(mark.get("type", ""))
        if kind == "code" and "`" in inner:
            inner = f"`` {inner} ``"
        elif kind in _MARKS:
            inner = f"{_MARKS[kind]}{inner}{_MARKS[kind]}"
        elif kind == "link":
            inner = f"[{inner}]({_attributes(mark).get('href', '')})"
    return before + inner + after


def _text(node: Node) -> str:
    text = node.get("text")
    return text if isinstance(text, str) else ""


def _plain(node: Node) -> str:
    """All text under a node, for what is nested too deeply to be rendered; never recursive."""
    pending: list[Node] = [node]
    texts: list[str] = []
    while pending:
        current = pending.pop()
        texts.append(_text(current))
        pending += reversed(_children(current))
    return " ".join(filter(None, texts))


_INLINE: dict[str, Callable[[Node, int], str]] = {
    "text": _marked,
    "hardBreak": lambda _node, _depth: "  \n",
    "mention": _mention,
    "emoji": _emoji,
    "date": _date,
    "status": _status,
    "inlineCard": _card,
    "mediaInline": _media,
}
_BLOCKS: dict[str, Callable[[Node, int], str]] = {
    "paragraph": _paragraph,
    "heading": _heading,
    "bulletList": _bullets,
    "orderedList": _numbers,
    "taskList": _tasks,
    "decisionList": _tasks,
    "blockquote": _quote,
    "panel": _panel,
    "codeBlock": _code,
    "rule": lambda _node, _depth: "---\n\n",
    "expand": _expand,
    "nestedExpand": _expand,
    "table": _table,
    "media": _media,
    "blockCard": lambda node, depth: f"{_card(node, depth)}\n\n",
    "embedCard": lambda node, depth: f"{_card(node, depth)}\n\n",
}
