"""Many people: a folder of videos becomes a library of avatars, on one machine or many."""

from avatar3d.batch.job import Job
from avatar3d.batch.library import Library
from avatar3d.batch.run import BatchOptions, make_library
from avatar3d.batch.shared import SharedLibrary, make_shared_library
from avatar3d.batch.table import Row, read_rows

__all__ = [
    "BatchOptions", "Job", "Library", "Row", "SharedLibrary", "make_library",
    "make_shared_library", "read_rows",
]  # fmt: skip
