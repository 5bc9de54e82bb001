"""Subjects and avatars named on the command line: local paths, or URLs of what is published."""

from pathlib import Path

__all__ = ["default_output", "local_source"]


def local_source(source: str) -> Path:
    """A path as it is; of a URL, the local copy of what is there."""
    if "://" not in source:
        return Path(source)
    from avatar3d.io.storage import local_copy

    return local_copy(source)


def default_output(source: Path, suffix: str) -> Path:
    """Where a command writes what it makes of `source`: beside it, or here if it has a URL."""
    from avatar3d.io.cache import cache_folder

    path = source.with_suffix(suffix)
    return Path(path.name) if path.is_relative_to(cache_folder()) else path
