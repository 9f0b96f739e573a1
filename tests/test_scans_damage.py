"""Truncated, random and mislabelled files: refused in words, without a crash, a number, or a patient's name."""

import numpy as np
import pytest

from mmdls.scans import read_mask, read_scan, write_nifti, write_segmentation
from tests.scanner import PET, write_enhanced, write_series
from tests.test_scans_masks import box, inside, write_contours
from tests.test_scans_reading import IDENTIFYING

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files that are damaged")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One file of each format, with the values that it holds."""
    folder = tmp_path_factory.mktemp("whole")
    array = np.random.default_rng(1).integers(-900, 900, (4, 16, 16)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    for name in ("a.nii", "b.nii.gz", "c.nrrd", "d.mha"):
        sitk.WriteImage(image, str(folder / name), useCompression=name != "a.nii")
    sitk.WriteImage(image, str(folder / "e.mha"), useCompression=False)
    sitk.WriteImage(image, str(folder / "f.nrrd"), useCompression=False)
    np.save(folder / "g.npy", array)
    write_series(folder / "series", array[:1])
    (folder / "series" / "00-0.dcm").rename(folder / "h.dcm")
    write_series(folder / "series", array[:1], **PET)
    (folder / "series" / "00-0.dcm").rename(folder / "i.dcm")
    write_enhanced(folder / "j.dcm", array)
    (folder / "series").rmdir()
    return sorted(folder.iterdir())


def damage(content, random):
    """A damaged copy, and whether every voxel must still be as it was if it is read at all."""
    kind = random.integers(6)
    if kind == 0:
        return content[: random.integers(len(content))]
    if kind == 1:
        return random.bytes(len(content))
    if kind == 2:
        return content[:132] + random.bytes(max(len(content) - 132, 1))
    place = int(random.integers(min(len(content), 1200)))
    if kind == 3:
        return content[:place] + random.bytes(int(random.integers(1, 40))) + content[place:]
    if kind == 4:
        return content[:place] + content[place + int(random.integers(1, 40)) :]
    some = bytearray(content)
    for one in random.integers(min(len(content), 1200), size=random.integers(1, 6)):
        some[one] = random.integers(256)
    return bytes(some)


def check(whole, folder, seeds):
    refused = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        file = whole[seed % len(whole)]
        path = folder / (file.name if random.random() < 0.8 else whole[random.integers(len(whole))].name)
        path.write_bytes(damage(file.read_bytes(), random))
        try:
            volume = read_scan(path, spacing=1 if path.suffix == ".npy" else None)
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            assert not [value for value in IDENTIFYING if value in str(error)], seed
        else:
            # A changed byte may be one of the voxels, or of a text that does not matter.
            assert np.isfinite(volume.array).all() and np.isfinite(volume.affine).all(), seed
    return refused


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_refused_in_words(whole, tmp_path):
    assert check(whole, tmp_path, range(60)) > 35


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_many_damaged_files(whole, tmp_path):
    assert check(whole, tmp_path, range(60, 700)) > 400


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_never_gives_a_volume(whole, tmp_path, fraction):
    for file in whole:
        path = tmp_path / file.name
        path.write_bytes(file.read_bytes()[: int(file.stat().st_size * fraction)])
        with pytest.raises(ValueError, match=file.name):
            read_scan(path, spacing=1 if path.suffix == ".npy" else None)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_damaged_masks_are_refused_in_words(tmp_path):
    write_series(tmp_path / "ct")
    scan = read_scan(tmp_path / "ct")
    write_contours(tmp_path / "rt.dcm", {"GTV": [box(scan, k, (0.5, 0.5), (3.5, 4.5)) for k in (1, 2)]})
    write_segmentation({"GTV": inside(scan)}, tmp_path / "seg.dcm", tmp_path / "ct")
    write_nifti(inside(scan), tmp_path / "a.nii")
    whole = [(tmp_path / name).read_bytes() for name in ("rt.dcm", "seg.dcm", "a.nii")]
    refused = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        content = whole[seed % 3]
        if random.random() < 0.4:
            # Anywhere, not in the first part only.
            some = bytearray(content)
            for one in random.integers(len(content), size=5):
                some[one] = random.integers(256)
            content = bytes(some)
        else:
            content = damage(content, random)
        path = tmp_path / ("damaged.nii" if seed % 3 == 2 else "damaged.dcm")
        path.write_bytes(content)
        try:
            mask = read_mask(path, scan, label=None if seed % 3 == 2 else "GTV")
        except ValueError as error:
            refused += 1
            assert "damaged." in str(error), seed
            assert not [value for value in IDENTIFYING if value in str(error)], seed
        else:
            assert mask.array.any() and mask.shape == scan.shape
    assert refused > 150
