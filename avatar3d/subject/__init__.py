"""Subject: one person's recording, understood."""

from avatar3d.subject.subject import PARSING_LABELS, Subject, SubjectInfo
from avatar3d.subject.tracking import Tracking

__all__ = ["PARSING_LABELS", "Subject", "SubjectInfo", "Tracking"]
