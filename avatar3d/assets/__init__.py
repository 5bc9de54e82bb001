"""Model files and sample clips that avatar3d needs and does not ship."""

from avatar3d.assets.manager import (
    AssetStatus,
    cache_folder,
    fetch,
    get,
    import_file,
    list_assets,
    remove,
)

__all__ = [
    "AssetStatus",
    "cache_folder",
    "fetch",
    "get",
    "import_file",
    "list_assets",
    "remove",
]
