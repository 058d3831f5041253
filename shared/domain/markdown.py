"""Descriptions and comments of trackers as Markdown: Atlassian Document Format, HTML, Jira's wiki markup.

No converter raises, whatever it is given: a description that looks odd is better than an issue that is not there.
"""

import re
from collections.abc import Sequence
from html.parser import HTMLParser

from shared.domain.adf import adf_to_markdown
from shared.domain.wiki import wiki_to_markdown

__all__ = ["adf_to_markdown", "html_to_markdown", "wiki_to_markdown"]

_MARKS = {"b": "**", "strong": "**", "i": "_", "em": "_", "s": "~~", "del": "~~", "strike": "~~", "code": "`"}
_BLOCKS = {"p", "div", "section", "article", "header", "footer", "table", "ul", "ol", "dl", "dt", "dd", "figure"}
_HEADINGS = {f"h{level}": "#" * level for level in range(1, 7)}
_SILENT = {"script", "style", "head", "title", "template"}
_MOST_LISTS = 20


def html_to_markdown(html: str) -> str:
    """HTML as Markdown; tags that say nothing about text are left out, scripts and styles with all they hold."""
    parser = _Html()
    parser.feed(html)
    parser.close()
    return parser.markdown()


class _Html(HTMLParser):
    """Collects Markdown in pieces; every tag costs constant time."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._pieces: list[str] = []
        self._lists: list[str] = []  # "ul", or the next number of an "ol"
        self._links: list[str] = []
        self._silent = 0
        self._pre = 0
        self._quotes: list[int] = []
        self._cells = 0
        self._header_due = False

    def parse_marked_section(self, i: int, report: bool = True) -> int:  # noqa: FBT001, FBT002 - the library's signature
        """What begins like `<![if …]>` and is nothing of the kind is text; the library raises."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return -1

    def markdown(self) -> str:
        """What was collected."""
        while self._quotes:
            self._end_quote()
        text = re.sub(
            r"[ \t]+\n(?!\n)", lambda found: "  \n" if found[0].startswith("  ") else "\n", "".join(self._pieces)
        )
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        """Open a tag."""
        values = dict(attrs)
        if tag in _SILENT:
            self._silent += 1
        elif tag == "pre":
            self._pre += 1
            self._pieces.append("\n\n```\n")
        elif tag in _MARKS:
            if not self._pre:
                self._pieces.append(_MARKS[tag])
        elif tag in _HEADINGS:
            self._pieces.append(f"\n\n{_HEADINGS[tag]} ")
        elif tag == "a":
            self._links.append(values.get("href") or "")
            self._pieces.append("[")
        elif tag == "img":
            source = values.get("src") or ""
            # A picture that is part of the text would make it many times longer.
            self._pieces.append(f"![{values.get('alt') or ''}]({'' if source.startswith('data:') else source})")
        elif tag == "br":
            self._pieces.append("\n" if self._pre else "<br>" if self._cells else "  \n")
        elif tag == "hr":
            self._pieces.append("\n\n---\n\n")
        else:
            self._open_block(tag, values)

    def _open_block(self, tag: str, values: dict[str, str | None]) -> None:
        if tag in {"ul", "ol"}:
            start = values.get("start") or "1"
            self._lists.append("ul" if tag == "ul" else start if start.isdecimal() and len(start) < 9 else "1")
            self._pieces.append("" if len(self._lists) > 1 else "\n\n")
        elif tag == "li":
            self._pieces.append(f"\n{'   ' * min(len(self._lists) - 1, _MOST_LISTS)}{self._bullet()}")
        elif tag == "blockquote":
            self._quotes.append(len(self._pieces))
        elif tag == "tr":
            self._pieces.append("\n|")
            self._cells = 0
        elif tag in {"td", "th"}:
            self._cells += 1
            self._pieces.append(" ")
        elif tag == "table":
            self._header_due = True
            self._pieces.append("\n\n")
        elif tag in _BLOCKS:
            self._pieces.append("" if self._cells or self._in_item() else "\n\n")

    def handle_endtag(self, tag: str) -> None:
        """Close a tag; one that was never opened changes nothing that matters."""
        if tag in _SILENT:
            self._silent = max(0, self._silent - 1)
        elif tag == "pre" and self._pre:
            self._pre -= 1
            self._pieces.append("\n```\n\n")
        elif tag in _MARKS:
            if not self._pre:
                self._pieces.append(_MARKS[tag])
        elif tag == "a" and self._links:
            self._pieces.append(f"]({self._links.pop()})")
        elif tag in {"ul", "ol"} and self._lists:
            self._lists.pop()
            self._pieces.append("" if self._lists else "\n\n")
        elif tag == "blockquote" and self._quotes:
            self._end_quote()
        else:
            self._close_block(tag)

    def _close_block(self, tag: str) -> None:
        if tag in {"td", "th"}:
            self._pieces.append(" |")
        elif tag == "tr":
            self._end_row()
        elif tag in _HEADINGS or tag in _BLOCKS:
            self._pieces.append("" if self._cells or self._in_item() else "\n\n")

    def handle_data(self, data: str) -> None:
        """Text between tags; blanks run together except in code."""
        if self._silent:
            return
        if self._pre:
            self._pieces.append(data)
            return
        text = re.sub(r"\s+", " ", data)
        if text == " " and self._pieces and self._pieces[-1].endswith(("\n", " ", "|")):
            return
        if self._pieces and self._pieces[-1].endswith("\n"):
            text = text.lstrip()
        self._pieces.append(text.replace("|", "\\|") if self._cells else text)

    def _in_item(self) -> bool:
        return bool(self._lists)

    def _bullet(self) -> str:
        if not self._lists or self._lists[-1] == "ul":
            return "- "
        number = int(self._lists[-1])
        self._lists[-1] = str(number + 1)
        return f"{number}. "

    def _end_row(self) -> None:
        if self._header_due and self._cells:
            self._pieces.append(f"\n|{' --- |' * self._cells}")
            self._header_due = False
        self._cells = 0

    def _end_quote(self) -> None:
        start = self._quotes.pop()
        inner = re.sub(r"\n{3,}", "\n\n", "".join(self._pieces[start:])).strip()
        quoted = "\n".join(f"> {line}".rstrip() for line in inner.split("\n"))
        self._pieces[start:] = [f"\n\n{quoted}\n\n"]
