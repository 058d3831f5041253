"""Texts of trackers as Markdown: nothing is lost, and nothing stops an import."""

import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.markdown import adf_to_markdown, html_to_markdown, wiki_to_markdown


def doc(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "doc", "version": 1, "content": list(content)}


def text(value: str, *marks: str) -> dict[str, Any]:
    return {"type": "text", "text": value, "marks": [{"type": mark} for mark in marks]}


def p(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "paragraph", "content": list(content)}


def node(kind: str, *content: dict[str, Any], **attrs: Any) -> dict[str, Any]:
    return {"type": kind, "attrs": attrs, "content": list(content)}


ADF = [
    pytest.param(p(text("a "), text("b", "strong"), text(" c", "em")), "a **b** _c_", id="marks keep blanks outside"),
    pytest.param(p(text("x", "code"), text("y", "strike"), text("z", "unknown")), "`x`~~y~~z", id="more marks"),
    pytest.param(
        p({"type": "text", "text": "here", "marks": [{"type": "link", "attrs": {"href": "https://a.example"}}]}),
        "[here](https://a.example)",
        id="link",
    ),
    pytest.param(node("heading", text("Title"), level=3), "### Title", id="heading"),
    pytest.param(
        node(
            "bulletList",
            node("listItem", p(text("a")), node("bulletList", node("listItem", p(text("b"))))),
            node("listItem", p(text("c"))),
        ),
        "- a\n  - b\n- c",
        id="nested lists",
    ),
    pytest.param(
        node("orderedList", node("listItem", p(text("a"))), node("listItem", p(text("b"))), order=4),
        "4. a\n5. b",
        id="numbers",
    ),
    pytest.param(
        node("taskList", node("taskItem", text("a"), state="DONE"), node("taskItem", text("b"), state="TODO")),
        "- [x] a\n- [ ] b",
        id="tasks",
    ),
    pytest.param(node("decisionList", node("decisionItem", text("go"), state="DECIDED")), "- [x] go", id="decisions"),
    pytest.param(node("panel", p(text("careful")), panelType="warning"), "> **Warning:** careful", id="panel"),
    pytest.param(node("blockquote", p(text("a")), p(text("b"))), "> a\n>\n> b", id="quote"),
    pytest.param(node("codeBlock", text("x = 1"), language="python"), "```python\nx = 1\n```", id="code"),
    pytest.param(node("codeBlock", text("```")), "````\n```\n````", id="code with a fence in it"),
    pytest.param(node("rule"), "---", id="rule"),
    pytest.param(node("expand", p(text("in")), title="More"), "**More**\n\nin", id="expand"),
    pytest.param(node("nestedExpand", p(text("in")), title="More"), "**More**\n\nin", id="nested expand"),
    pytest.param(
        node("layoutSection", node("layoutColumn", p(text("l"))), node("layoutColumn", p(text("r")))),
        "l\n\nr",
        id="layout",
    ),
    pytest.param(
        node(
            "table",
            node("tableRow", node("tableHeader", p(text("A"))), node("tableHeader", p(text("B")))),
            node("tableRow", node("tableCell", p(text("1")), p(text("2"))), node("tableCell", p(text("x|y")))),
        ),
        "| A | B |\n| --- | --- |\n| 1<br>2 | x\\|y |",
        id="table with two paragraphs in a cell",
    ),
    pytest.param(node("mediaSingle", node("media", alt="screen.png", type="file")), "[screen.png]", id="media"),
    pytest.param(node("mediaGroup", node("media", __fileName="log.txt")), "[log.txt]", id="media group"),
    pytest.param(p(node("inlineCard", url="https://a.example/x")), "<https://a.example/x>", id="card"),
    pytest.param(
        p(node("mention", text="@Noor", id="1"), text(" "), node("mention", id="2")), "@Noor @2", id="mentions"
    ),
    pytest.param(p(node("emoji", shortName=":tada:"), node("emoji", text="🎉")), ":tada:🎉", id="emoji"),
    pytest.param(
        p(node("status", text="IN REVIEW"), text(" "), node("date", timestamp="1741000000000")),
        "IN REVIEW 2025-03-03",
        id="status and date",
    ),
    pytest.param(p(text("a"), node("hardBreak"), text("b")), "a  \nb", id="break"),
    pytest.param(node("brandNewThing", p(text("kept")), text("too")), "kept\n\ntoo", id="unknown node"),
    pytest.param(p(node("inlineExtension", text="shown"), text(" too")), "shown too", id="what an extension shows"),
    pytest.param(p(text("a`b", "code")), "`` a`b ``", id="code with a backtick in it"),
]


@pytest.mark.parametrize(("content", "expected"), ADF)
def test_documents_become_markdown(content: dict[str, Any], expected: str) -> None:
    assert adf_to_markdown(doc(content)) == expected


@pytest.mark.parametrize(
    "empty", [None, {}, {"type": "doc"}, {"type": "doc", "content": None}, {"type": "doc", "content": [1, "x"]}]
)
def test_empty_documents_are_empty(empty: Any) -> None:
    assert adf_to_markdown(empty) == ""


def test_hostile_nesting_is_survived_with_its_text() -> None:
    nested: dict[str, Any] = text("core")
    for _ in range(5_000):
        nested = {"type": "blockquote", "content": [nested]}

    assert "core" in adf_to_markdown(doc(nested))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "text", "attrs", "marks", "level"]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["type", "content", "text", "attrs", "marks"]), JSON))
def test_no_document_raises(document: dict[str, Any]) -> None:
    assert isinstance(adf_to_markdown(document), str)


KINDS = [
    "paragraph",
    "bulletList",
    "listItem",
    "panel",
    "expand",
    "table",
    "tableRow",
    "tableCell",
    "blockquote",
    "odd",
]
TREE = st.recursive(
    st.from_regex(r"[a-z]{4,9}", fullmatch=True).map(text),
    lambda inner: st.tuples(st.sampled_from(KINDS), st.lists(inner, min_size=1, max_size=3)).map(
        lambda made: node(made[0], *made[1])
    ),
    max_leaves=12,
)


def words(tree: dict[str, Any]) -> list[str]:
    return [tree["text"]] if "text" in tree else [word for child in tree["content"] for word in words(child)]


@given(TREE)
def test_no_text_of_a_document_is_lost(tree: dict[str, Any]) -> None:
    found = adf_to_markdown(doc(tree))

    assert all(word in found for word in words(tree))


HTML = [
    ("<p>a <b>b</b> &amp; <i>c</i></p>", "a **b** & _c_"),
    ('<a href="https://a.example">x</a>', "[x](https://a.example)"),
    ('<img src="s.png" alt="shot">', "![shot](s.png)"),
    ("one<br>two", "one  \ntwo"),
    ("<h2>Title</h2><p>x</p>", "## Title\n\nx"),
    ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n   - b\n- c"),
    ("<ol start=3><li>a</li><li>b</li></ol>", "3. a\n4. b"),
    ("<pre>  x = 1\n  y</pre>", "```\n  x = 1\n  y\n```"),
    ("<blockquote>a<br>b</blockquote>", "> a\n> b"),
    (
        "<table><tr><th>A</th><th>B</th></tr><tr><td>1|2</td><td>x</td></tr></table>",
        "| A | B |\n| --- | --- |\n| 1\\|2 | x |",
    ),
    ('<img src="data:image/png;base64,iVBORw0KGgo=" alt="shot">', "![shot]()"),
    ("a<script>alert(1)</script><style>p{}</style>b", "ab"),
    ("</li></ul></p>x<b>", "x**"),
    ("1 &lt; 2 &#8217;", "1 < 2 ’"),
]


@pytest.mark.parametrize(("html", "expected"), HTML)
def test_html_becomes_markdown(html: str, expected: str) -> None:
    assert html_to_markdown(html) == expected


WIKI = [
    ("h3. Title", "### Title"),
    ("*b* _i_ -s- {{m}} ??c??", "**b** _i_ ~~s~~ `m` _c_"),
    ("2*3*4 a_b_c well-known-thing", "2*3*4 a_b_c well-known-thing"),
    ("* a\n** b\n# c", "- a\n   - b\n1. c"),
    ("[t|https://a.example] [https://b.example]", "[t](https://a.example) <https://b.example>"),
    ("[~noor] [~accountid:5b1:22]", "@noor @5b1:22"),
    ("!s.png|thumbnail! wow! really!", "![s.png](s.png) wow! really!"),
    ("||A||B||\n|1|[t|https://x.example]|", "| A | B |\n| --- | --- |\n| 1 | [t](https://x.example) |"),
    ("un{*}brok{*}en {_}it {_}{-}x{-} {+}u{+}", "un**brok**en _it_ ~~x~~ u"),
    ("||A|1|\n|B||2||", "|  |  |\n| --- | --- |\n| **A** | 1 |\n| B | **2** |"),
    ("|{{a|b}}|c\\|d|", "|  |  |\n| --- | --- |\n| `a\\|b` | c\\|d |"),
    ("|| ||A||", "|  | A |\n| --- | --- |"),
    ("{code:java}\nint x = *a*;\n{code}", "```java\nint x = *a*;\n```"),
    ("{noformat}\n*as it is*\n{noformat}", "```\n*as it is*\n```"),
    ("{quote}a\nb{quote}", "> a\n> b"),
    ("bq. said", "> said"),
    ("{color:red}red{color} {panel:title=T}x{panel}", "red **T**x"),
    ("----", "---"),
    (r"not \*bold\*", "not *bold*"),
    ("an open {code} stays", "an open {code} stays"),
]


@pytest.mark.parametrize(("wiki", "expected"), WIKI)
def test_wiki_markup_becomes_markdown(wiki: str, expected: str) -> None:
    assert wiki_to_markdown(wiki) == expected


MARKUP = st.text(alphabet="*_-+[]{}|!~#hq.:/ \n\\acode<>&;\ue000\ue0021", max_size=60)


def test_what_is_no_section_is_text() -> None:
    assert html_to_markdown("<p>a <![1 b</p> <![if !mso]>c<![endif]> d") == "a <![1 b</p> c d"


@example("<![1")
@given(MARKUP | st.text(max_size=60))
def test_no_text_raises(value: str) -> None:
    assert isinstance(html_to_markdown(value), str)
    assert isinstance(wiki_to_markdown(value), str)


@pytest.mark.parametrize(
    "unit", ["<![1", "*a ", "[a|", "{code}", "||", "!a", "{{", "<b>", "<ul><li>", "_-*", "{quote}", "<table><tr><td>"]
)
def test_hostile_texts_take_time_in_proportion(unit: str) -> None:
    def seconds(repeats: int) -> float:
        began = time.process_time()
        html_to_markdown(unit * repeats)
        wiki_to_markdown(unit * repeats)
        return time.process_time() - began

    seconds(100)

    assert seconds(16_000) < 40 * max(seconds(2_000), 0.01)
