"""Stack traces in descriptions, in code and between other lines."""

import pytest

from shared.connectors._traces import find_stack_trace

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
