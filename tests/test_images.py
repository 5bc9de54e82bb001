"""Pictures on the disk, read back by other libraries than the one that wrote them."""

import numpy as np
import pytest
from PIL import Image

from avatar3d.io.images import read_image, write_image


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (256, 255)])
def test_a_written_mask_is_read_by_others(tmp_path, shape, dtype):
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    write_image(tmp_path / "mask.png", image)
    assert np.array_equal(cv2.imread(str(tmp_path / "mask.png"), cv2.IMREAD_UNCHANGED), image)
    assert np.array_equal(read_image(tmp_path / "mask.png"), image)
    with Image.open(tmp_path / "mask.png") as opened:
        opened.verify()
        assert opened.mode == ("L" if dtype is np.uint8 else "I;16")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_labels_are_small(tmp_path):
    labels = np.zeros((512, 512), np.uint8)
    labels[100:400, 150:350] = 7
    write_image(tmp_path / "labels.png", labels)
    assert (tmp_path / "labels.png").stat().st_size < 5000
