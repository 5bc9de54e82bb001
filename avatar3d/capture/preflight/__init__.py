"""The pre-flight check: is this clip good enough, measured on a subset of it before long work."""

from avatar3d.capture.preflight.check import Checked, check, check_clip
from avatar3d.capture.preflight.page import report_page
from avatar3d.capture.preflight.report import CheckReport, Finding

__all__ = ["CheckReport", "Checked", "Finding", "check", "check_clip", "report_page"]
