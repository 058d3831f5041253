"""Descriptions of trackers as Markdown."""

import re
from typing import Any


def _walk(node: dict[str, Any] | None) -> str:
    """Atlassian Document Format."""
    if not node:
        return ""
    inner = "".join(_walk(child) for child in node.get("content", ()))
    text = str(node.get("text", ""))
    return f"{text}{inner}" + ("\n\n" if node.get("type") in {"paragraph", "heading"} else "")


def adf_to_markdown(node: dict[str, Any] | None) -> str:
    """Atlassian Document Format."""
    return _walk(node).strip()


def html_to_markdown(html: str) -> str:
    """HTML."""
    return re.sub(r"<[^>]*>", "", html)


def wiki_to_markdown(text: str) -> str:
    """Jira wiki markup."""
    return text
