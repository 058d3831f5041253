"""Stack traces and environments that people paste into descriptions, in code and between other lines."""

import pytest

from shared.connectors._traces import find_environment, find_stack_trace

JAVA = (
    "java.lang.IllegalStateException: drift\n\tat example.Arm.swing(Arm.java:41)\n\tat example.Main.main(Main.java:7)"
)
CAUSED = f"{JAVA}\nCaused by: java.io.IOException: cable\n\tat example.Cable.pull(Cable.java:3)\n\t... 2 more"
PYTHON = """Traceback (most recent call last):
  File "tide/quay.py", line 88, in moor
    raise Moored(berth)
Moored: berth 7"""
SCRIPT = "TypeError: x is undefined\n    at draw (app.js:10:5)\n    at main (app.js:2:1)"
DOTNET = "System.Exception: no\n   at A.B() in C:\\a\\b.cs:line 4\n   at A.Main() in C:\\a\\b.cs:line 9"


@pytest.mark.parametrize("trace", [JAVA, PYTHON, SCRIPT, DOTNET], ids=["java", "python", "javascript", ".net"])
@pytest.mark.parametrize("around", ["Seen twice:\n\n{}\n\nPlease look.", "{}", "{}\n\nand then the crane stopped"])
def test_a_pasted_trace_is_found_between_other_lines(trace: str, around: str) -> None:
    assert find_stack_trace(around.format(trace)) == trace


def test_causes_belong_to_a_trace() -> None:
    found = find_stack_trace(f"Crash\n\n{CAUSED}\nThat is all.")

    assert (found or "").endswith("Cable.java:3)")
    assert "Caused by" in (found or "")


def test_lines_that_became_paragraphs_are_still_a_trace() -> None:
    assert find_stack_trace("Look:\n\n" + JAVA.replace("\n\t", "\n\n")) == JAVA.replace("\t", "")


def test_code_is_preferred() -> None:
    assert find_stack_trace(f"{SCRIPT}\n\n```java\n{JAVA}\n```") == JAVA


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Look at (line 3)",
        "We met at the quay (at 10:30)\nand left.",
        "#12 fixed by Noor (3)\n#13 open (4)",
        "at the quay (berth:7) something\nbroke",
        "Traceback (most recent call last)",
        "```\nplain code\n```",
        "at x" + "(:1" * 50_000,
    ],
)
def test_other_words_are_no_trace(text: str) -> None:
    assert find_stack_trace(text) is None


@pytest.mark.parametrize(
    "code",
    [
        pytest.param('Traceback (most recent call last):\n  File "berth.py", line 31, in hold\nSlipError', id="Python"),
        pytest.param(JAVA, id="Java"),
        pytest.param("TypeError: x is undefined\n    at hold (/srv/berth.js:31:7)\n    at /srv/main.js:9:1", id="Node"),
        pytest.param("   at Quay.Berth.Hold() in C:\\quay\\Berth.cs:line 31", id=".NET"),
        pytest.param("berth.rb:31:in `hold': slip\n\tfrom main.rb:9:in `<main>'", id="Ruby"),
        pytest.param("#0 /srv/berth.php(31): hold()", id="PHP"),
        pytest.param("panic: slip\n\ngoroutine 1 [running]:\nmain.hold()", id="Go"),
        pytest.param("thread 'main' panicked at src/berth.rs:31:5:", id="Rust"),
    ],
)
def test_a_code_block_that_looks_like_a_stack_trace_is_one(code: str) -> None:
    text = f"It fails:\n\n```sh\nmake run\n```\n\nand then\n\n~~~\n{code}\n~~~\n"

    assert find_stack_trace(text) == code


def test_a_longer_fence_holds_shorter_ones() -> None:
    assert find_stack_trace(f"````\n```\n{JAVA}\n```\n````\n") == f"```\n{JAVA}\n```"


def test_a_fence_that_was_cut_off_goes_on_to_the_end() -> None:
    assert find_stack_trace(f"```\r\n{JAVA}") == JAVA


def test_an_environment_is_what_stands_under_its_heading() -> None:
    text = (
        "### What happened?\n\nIt: broke\n\n### Environment\n\n- **OS**: Windows 11\n* Browser: Firefox 120\n"
        "**Version:** 1.2\nbehind a proxy\n\n### Steps\n\nfirst: open it\n"
    )

    assert find_environment(text) == {
        "OS": "Windows 11",
        "Browser": "Firefox 120",
        "Version": "1.2",
        "description": "behind a proxy",
    }


@pytest.mark.parametrize(
    "heading",
    ["# Environment", "**Environment**", "**Your environment:**", "## System Info ##", "#### Environment details:"],
)
def test_headings_of_bug_reports(heading: str) -> None:
    assert find_environment(f"{heading}\nOS: Windows 11") == {"OS": "Windows 11"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The environment: none",
        "### Environment\n\n_No response_\n",
        "### Environment variables\nHOME: /root",
        "```\n### Environment\nOS: in code\n```",
    ],
)
def test_other_texts_have_no_environment(text: str) -> None:
    assert find_environment(text) is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("```\nat a" + "(" * 1_000_000 + "\n```", id="one long line"),
        pytest.param("```a\n" * 250_000, id="fences that never close"),
        pytest.param("`" * 1_000_000, id="one long fence"),
        pytest.param("```\n" + "\n" * 1_000_000 + "```", id="blank lines"),
        pytest.param("**" * 500_000, id="marks of emphasis"),
        pytest.param("## Environment\n" + ("a " * 150 + "\n") * 4_000, id="no pair in many lines"),
    ],
)
def test_a_hostile_text_does_not_stop_the_worker(text: str) -> None:
    # Work that grows with the square of such a length would not end within the time limit of a test.
    assert find_stack_trace(text) is None
    assert (find_environment(text) is None) == ("Environment" not in text)
