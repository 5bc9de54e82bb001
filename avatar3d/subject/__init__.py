"""Subject: one person's recording, understood."""

from avatar3d.subject.consent import Consent, consent_line, read_consent
from avatar3d.subject.subject import PARSING_LABELS, Subject, SubjectInfo
from avatar3d.subject.tracking import FRAME_REASONS, Tracking

__all__ = [
    "FRAME_REASONS", "PARSING_LABELS", "Consent", "Subject", "SubjectInfo", "Tracking",
    "consent_line", "read_consent",
]  # fmt: skip
