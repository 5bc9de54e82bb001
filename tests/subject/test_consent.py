"""A statement of consent says who, for what and when, or is refused in one sentence."""

import datetime
import hashlib
from pathlib import Path

import pytest

from avatar3d.errors import UserError
from avatar3d.subject import Consent, SubjectInfo, consent_line, read_consent

GOOD = "who: Ada Lovelace\nscope: research and demonstration\ndate: 2026-11-23\n"


def test_a_file_becomes_a_record(tmp_path: Path) -> None:
    path = tmp_path / "consent.yaml"
    path.write_text(GOOD)
    consent = read_consent(str(path))
    assert isinstance(consent, Consent)
    assert consent.date == datetime.date(2026, 11, 23)
    assert consent.sha256 == hashlib.sha256(GOOD.encode()).hexdigest()
    assert consent_line(consent) == "Ada Lovelace, 2026-11-23: research and demonstration"


def test_a_record_survives_the_subject_file(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"who": "A", "scope": "B", "date": "2026-01-02"}')
    info = SubjectInfo(
        source_name="a", source_sha256="b", fps=25, frames=1, width=64, height=64,
        consent=read_consent(str(tmp_path / "c.json")),
    )  # fmt: skip
    again = SubjectInfo.model_validate_json(info.model_dump_json())
    assert again.consent == info.consent
    assert isinstance(again.consent_data, dict)
    assert again.consent_data["date"] == "2026-01-02"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("who: A\nscope: B\n", "date"),
        ("who: A\nscope: B\ndate: soon\n", "date"),
        ("who: ''\nscope: B\ndate: 2026-01-01\n", "who"),
        ("just words", "table"),
        ("who: A\nscope: B\ndate: 2026-01-01\nmore: 1\n", "more"),
        ("who: [", "consent"),
        ("!!python/object/apply:os.system ['true']", "constructor"),
        ("x" * 200_000, "long"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "consent.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=reason) as error:
        read_consent(str(path))
    assert str(path) in str(error.value)


def test_a_note_stays_a_note() -> None:
    assert read_consent("signed, in the drawer") == "signed, in the drawer"
    assert read_consent("x" * 5000) == "x" * 5000  # too long for the name of a file
    assert read_consent(None) is None
    assert consent_line(None) == "none noted"
