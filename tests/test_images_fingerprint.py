"""Fingerprints of images: equal for equal pixels, whatever happened to the files; different for any other."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from mmdls.images import SliceStore, fingerprint


def folder_of(path, stack):
    path.mkdir()
    for i, image in enumerate(stack):
        Image.fromarray(image).save(path / f"slice_{i}.png")
    return path


@pytest.fixture
def stack():
    return np.random.default_rng(0).integers(0, 256, (11, 6, 5), dtype=np.uint8)


def test_the_same_pixels_have_the_same_fingerprint(tmp_path, stack):
    folder = folder_of(tmp_path / "a", stack)
    first = fingerprint(folder)
    assert first == fingerprint(str(folder)) and len(first) == 32
    shutil.copytree(folder, tmp_path / "b")
    os.utime(tmp_path / "b" / "slice_3.png", (1, 1))
    (tmp_path / "b" / ".DS_Store").write_bytes(b"system")
    (tmp_path / "b" / "notes.txt").write_text("window -1350 to 150 HU")
    assert fingerprint(tmp_path / "b") == first
    files = [tmp_path / "b" / f"slice_{i}.png" for i in range(11)]
    assert fingerprint(files) == first


def test_other_pixels_have_another_fingerprint_at_equal_size_and_time(tmp_path, stack):
    folder = folder_of(tmp_path / "a", stack)
    seen = {fingerprint(folder)}
    data = bytearray((folder / "slice_3.png").read_bytes())
    time = (folder / "slice_3.png").stat().st_mtime_ns
    data[-20] ^= 1
    (folder / "slice_3.png").write_bytes(data)
    os.utime(folder / "slice_3.png", ns=(time, time))
    seen.add(fingerprint(folder))
    (folder / "slice_10.png").rename(folder / "slice_00.5.png")
    seen.add(fingerprint(folder))
    (folder / "slice_4.png").unlink()
    seen.add(fingerprint(folder))
    assert len(seen) == 4
    np.save(tmp_path / "x.npy", stack)
    cells = [None, stack, stack[:, :5], stack.astype(np.int16), stack.reshape(11, 5, 6), tmp_path / "x.npy"]
    assert len({fingerprint(cell) for cell in cells}) == len(cells)
    assert fingerprint(None) == fingerprint(np.nan) and fingerprint(stack) == fingerprint(np.asfortranarray(stack))


def test_what_has_no_pixels_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no image at .*gone' of patient 'P1'"):
        fingerprint(tmp_path / "gone", "P1")
    with pytest.raises(ValueError, match="patient 'P1' is empty"):
        fingerprint("", "P1")
    with pytest.raises(TypeError, match="got dict"):
        fingerprint({})
    with pytest.raises(ValueError, match="must hold numbers; got object"):
        fingerprint(np.array([{}], dtype=object))


def test_a_kept_store_is_found_by_what_its_images_hold(tmp_path, stack):
    folder = folder_of(tmp_path / "a", stack)
    store = SliceStore.build([folder], memory=tmp_path / "memory")
    shutil.move(folder, tmp_path / "b")
    assert SliceStore.build([tmp_path / "b"], memory=tmp_path / "memory").key == store.key
