"""Words of trackers folded into ours."""

import pytest

from shared.domain.issue import severity_of


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        *(("blocker", "critical"), ("critical", "critical"), ("major", "high"), ("normal", "medium")),
        *(("minor", "low"), ("trivial", "low"), ("enhancement", "low")),
        *(
            ("P1", "critical"),
            ("P2", "high"),
            ("P3", "medium"),
            ("P5", "low"),
            ("p 2", "high"),
            ("P1 (Urgent)", "critical"),
        ),
        *(("Sev 3", "medium"), ("SEV-1", "critical"), ("Severity 2", "high"), ("S4", "low"), ("Priority 2", "high")),
        *(("2 - High", "high"), ("2 - Important", "high"), ("1 - Kritisch", "critical"), ("4 - Low", "low")),
        *(("--", None), ("N/A", None), ("P12", None), ("soon", None), ("", None)),
    ],
)
def test_a_priority_or_severity_is_folded_into_ours(word: str, severity: str | None) -> None:
    assert severity_of(word) == severity
