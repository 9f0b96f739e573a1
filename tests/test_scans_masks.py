"""Masks: contours, segmentations and labels on the voxels of their scan; written and read back equal."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from mmdls.scans import Volume, read_mask, read_scan, resample, same_geometry, write_nifti, write_segmentation
from mmdls.scans._cells import as_mask
from mmdls.scans._rtstruct import RTSTRUCT, fill
from tests.scanner import generate_uid, item, write_series
from tests.test_scans import OBLIQUE, make, rotation
from tests.test_scans_reading import IDENTIFYING

nibabel = pytest.importorskip("nibabel")
sitk = pytest.importorskip("SimpleITK")
DATA = Path(os.environ.get("MMDLS_DATA", "nowhere")) / "lung1_001"


def inside(volume, first=(1, 1, 2), last=(4, 4, 6)):
    array = np.zeros(volume.shape, dtype=bool)
    array[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return Volume(array, volume.affine, "label")


def write_contours(path, rois):
    """rois: name -> list of (n, 3) corners in mm."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = RTSTRUCT
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.Modality = "Muster^Erika", "RTSTRUCT"
    dataset.StructureSetROISequence = [item(ROINumber=i, ROIName=name) for i, name in enumerate(rois, 1)]
    dataset.ROIContourSequence = [
        item(
            ReferencedROINumber=i,
            ContourSequence=[
                item(
                    ContourGeometricType="CLOSED_PLANAR" if len(corners) > 2 else "POINT",
                    NumberOfContourPoints=len(corners),
                    ContourData=[f"{value:.5f}" for value in np.ravel(corners)],
                )
                for corners in contours
            ],
        )
        for i, contours in enumerate(rois.values(), 1)
    ]
    dataset.save_as(path, enforce_file_format=True)


def box(volume, plane, low, high):
    corners = [(plane, low[0], low[1]), (plane, high[0], low[1]), (plane, high[0], high[1]), (plane, low[0], high[1])]
    return volume.places(np.array(corners, dtype=float))


# -- contours ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the real data of MMDLS_DATA")
@pytest.mark.parametrize(
    ("name", "file", "label", "ml"),
    [
        ("GTV-1", "gtv1_mask", None, 156.3),
        ("Lung-Right", "lungs_label", 1, 2966),
        ("Lung-Left", "lungs_label", 2, 2277),
    ],
)
def test_contours_of_a_real_patient(name, file, label, ml):
    scan = read_scan(DATA / "LUNG1-001_ct_hu.nii.gz", unit="HU")
    drawn = read_mask(DATA / "LUNG1-001_rtstruct.dcm", scan, label=name)
    given = read_mask(DATA / f"LUNG1-001_{file}.nii.gz", scan, label=label)
    assert (drawn.array == given.array).all()
    assert drawn.array.sum() * drawn.voxel_ml == pytest.approx(ml, rel=0.001)


@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(180, 0, 0)])
def test_contours_and_their_holes(tmp_path, turn):
    scan = make((6, 20, 24), turn=turn).turned()
    contours = [box(scan, k, (2.5, 3.5), (15.5, 18.5)) for k in (2, 3)] + [box(scan, 3, (5.5, 6.5), (9.5, 9.5))]
    write_contours(tmp_path / "rt.dcm", {"GTV": contours, "dot": [contours[0][:1]], "other": [contours[0]]})
    mask = read_mask(tmp_path / "rt.dcm", scan, label="GTV")
    expected = inside(scan, (2, 3, 4), (4, 16, 19)).array
    expected[3, 6:10, 7:10] = False
    assert (mask.array == expected).all() and same_geometry(mask, scan) and mask.unit == "label"
    assert (read_mask(tmp_path / "rt.dcm", scan, label=1).array == expected).all()
    for label, match in (
        ("gtv", "no structures called 'gtv'; choose one by label="),
        (None, "has 3 structures; choose one"),
        ("dot", "no area"),
    ):
        with pytest.raises(ValueError, match=match):
            read_mask(tmp_path / "rt.dcm", scan, label=label)
    with pytest.raises(ValueError, match="pass like="):
        read_mask(tmp_path / "rt.dcm", label="GTV")
    far = Volume(scan.array[:3, :8], scan.affine, "HU")
    with pytest.raises(ValueError, match="another scan"):
        read_mask(tmp_path / "rt.dcm", far, label="GTV")


def test_contours_that_lie_over_one_another(tmp_path):
    scan = make((6, 20, 24))
    path = tmp_path / "rt.dcm"
    one, beside = box(scan, 2, (2.5, 3.5), (15.5, 18.5)), box(scan, 2, (16.5, 3.5), (18.5, 18.5))
    hole, crossing = box(scan, 2, (5.5, 6.5), (9.5, 9.5)), box(scan, 2, (10.5, 10.5), (18.5, 20.5))
    more_corners = np.stack([one, (one + np.roll(one, -1, 0)) / 2], axis=1).reshape(-1, 3)
    rounded = one + np.random.default_rng(0).normal(0, 0.02, one.shape) * (1, 1, 0)
    for contours, count in (([one, one], 195), ([one, np.roll(one, 1, 0)], 195), ([one, hole, one], 195 - 12),
                            ([one, beside], 195 + 30), ([one, more_corners], 195), ([one, rounded], 195),
                            ([one, box(scan, 2, (3.5, 4.5), (14.5, 17.5))], 195 - 143)):  # fmt: skip
        write_contours(path, {"GTV": contours})
        assert read_mask(path, scan).array.sum() == count
    write_contours(path, {"GTV": [one, crossing]})
    with pytest.raises(ValueError, match="overlap in part"):
        read_mask(path, scan)
    dataset = dcmread(path)
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = "CLOSEDPLANAR_XOR"
    dataset.save_as(path)
    assert read_mask(path, scan).array.sum() == 195 + 80 - 2 * 40
    write_contours(path, {"GTV": [one], "other": [hole]})
    dataset = dcmread(path)
    dataset.StructureSetROISequence[1].ROINumber = dataset.ROIContourSequence[1].ReferencedROINumber = 1
    dataset.save_as(path)
    with pytest.raises(ValueError, match="same ROINumber"):
        read_mask(path, scan, label="other")


def test_contours_on_other_slices(tmp_path):
    scan = make((6, 20, 24))
    write_contours(tmp_path / "rt.dcm", {"GTV": [box(scan, k, (2.5, 3.5), (15.5, 18.5)) for k in (2, 3)]})
    moved = Volume(scan.array, scan.affine + shift(0.9), "HU")
    with pytest.raises(ValueError, match="mm beside the slices of like.*resample=True") as caught:
        read_mask(tmp_path / "rt.dcm", moved)
    assert "Muster" not in str(caught.value)
    assert read_mask(tmp_path / "rt.dcm", moved, resample=True).array.sum() == 2 * 13 * 15
    with pytest.raises(ValueError, match="not parallel"):
        read_mask(tmp_path / "rt.dcm", make((20, 20, 24), turn=OBLIQUE))
    write_contours(tmp_path / "rt.dcm", {"GTV": [box(scan, k, (2.5, 3.5), (15.5, 18.5)) for k in (0, 2, 4)]})
    with pytest.warns(UserWarning, match="nothing on 2 slices between others .* forgotten"):
        assert read_mask(tmp_path / "rt.dcm", scan).array.any(axis=(1, 2)).tolist() == [True, False] * 3
    write_contours(tmp_path / "rt.dcm", {"GTV": [box(scan, k, (2.5, 3.5), (15.5, 18.5)) for k in (0, 1, 3, 4)]})
    with pytest.warns(UserWarning, match="the mask of patient 'P1' has nothing on 1 slices"):
        drawn = read_mask(tmp_path / "rt.dcm", scan, patient="P1")
    write_nifti(drawn, tmp_path / "a.nii")
    with pytest.warns(UserWarning, match="nothing on 1 slices"):
        read_mask(tmp_path / "a.nii", scan)


@pytest.mark.parametrize(("characters", "called"), [("ISO_IR 192", "Größe Łódź 肺"), ("ISO_IR 100", "Läsion")])
def test_names_of_structures_are_in_the_letters_of_the_file(tmp_path, characters, called):
    write_series(tmp_path / "ct")
    scan = read_scan(tmp_path / "ct")
    write_contours(tmp_path / "rt.dcm", {"a": [box(scan, k, (0.5, 0.5), (3.5, 4.5)) for k in (1, 2)]})
    write_segmentation({"a": inside(scan)}, tmp_path / "seg.dcm", tmp_path / "ct")
    for file, sequence, tag in (("rt.dcm", "StructureSetROISequence", "ROIName"),
                                ("seg.dcm", "SegmentSequence", "SegmentLabel")):  # fmt: skip
        dataset = dcmread(tmp_path / file)
        dataset.SpecificCharacterSet = characters
        setattr(dataset[sequence][0], tag, called)
        dataset.save_as(tmp_path / file)
        assert read_mask(tmp_path / file, scan, label=called).array.any()


def test_a_mask_of_another_frame_of_reference_is_refused(tmp_path):
    write_series(tmp_path / "ct", np.zeros((6, 20, 24), dtype=np.int16), FrameOfReferenceUID="1.2.3")
    scan = read_scan(tmp_path / "ct")
    contours = {"GTV": [box(scan, k, (2.5, 3.5), (15.5, 18.5)) for k in (2, 3)]}
    write_contours(tmp_path / "rt.dcm", contours)
    drawn = read_mask(tmp_path / "rt.dcm", scan).array
    write_segmentation({"GTV": Volume(drawn, scan.affine)}, tmp_path / "seg.dcm", scan=tmp_path / "ct")
    dataset = dcmread(tmp_path / "rt.dcm")
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"
    dataset.save_as(tmp_path / "rt.dcm")
    other = replace(scan, frame="1.2.4")
    assert "1.2.3" not in repr(scan)
    for name in ("rt.dcm", "seg.dcm"):
        assert (read_mask(tmp_path / name, scan).array == drawn).all()
        with pytest.raises(ValueError, match="another frame of reference .* registered, pass") as caught:
            read_mask(tmp_path / name, other)
        assert "1.2.3" not in str(caught.value)
        assert (read_mask(tmp_path / name, replace(other, frame="")).array == drawn).all()
    mask = read_mask(tmp_path / "rt.dcm", scan)
    for brought in (lambda: resample(mask, like=other), lambda: as_mask(mask, other, other)):
        with pytest.raises(ValueError, match="^the (volume|mask) has another frame of reference"):
            brought()
    assert resample(mask, like=replace(other, frame="")).frame == mask.frame == "1.2.3"


def shift(mm):
    move = np.zeros((4, 4))
    move[2, 3] = mm
    return move


def test_polygons_equal_the_even_odd_rule_point_by_point():
    random = np.random.default_rng(3)
    for _ in range(20):
        polygons = [random.uniform(-3, 23, (random.integers(3, 9), 2)) for _ in range(random.integers(1, 4))]
        filled = fill(polygons, (20, 22))
        for row, column in random.integers(0, 20, (30, 2)):
            crossed = 0
            for polygon in polygons:
                for (r0, c0), (r1, c1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
                    if (r0 > row) != (r1 > row):
                        crossed += column > c0 + (row - r0) * (c1 - c0) / (r1 - r0)
            assert filled[row, column] == crossed % 2


# -- files of labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(100, 80, -170)])
@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_keeps_every_voxel_at_its_place(tmp_path, turn, flip, name):
    volume = make(turn=turn, flip=flip)
    write_nifti(volume, tmp_path / name)
    back = read_scan(tmp_path / name, unit="HU")
    assert same_geometry(back, volume.turned(), 1e-3)
    assert (back.array == volume.turned().array).all()
    # SimpleITK finds the voxels at the same places.
    image = sitk.ReadImage(str(tmp_path / name))
    place = volume.places((2, 3, 4))
    index = image.TransformPhysicalPointToIndex(place.tolist())
    assert image[index] == volume.array[2, 3, 4]
    assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(place, abs=1e-3)
    # Programs that read the rotation only find the same places as those that read the matrix.
    header = nibabel.load(tmp_path / name).header
    assert header["qform_code"] == header["sform_code"] == 1
    np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-3)
    # What its values are is not guessed where it is written.
    assert read_scan(tmp_path / name).unit == volume.unit == "HU"
    with pytest.raises(ValueError, match="holds HU, as it says, and SUV is expected"):
        read_scan(tmp_path / name, unit="SUV")
    mask = inside(volume)
    write_nifti(mask, tmp_path / name)
    assert (read_mask(tmp_path / name, volume.turned()).array == mask.turned().array).all()
    with pytest.raises(ValueError, match=".nii.gz"):
        write_nifti(volume, tmp_path / "a.img")


def test_labels_by_number_and_by_name(tmp_path):
    volume = make()
    array = inside(volume).array.astype(np.uint8) * 3
    array[0, 0, 0] = 1
    write_nifti(Volume(array, volume.affine, "label"), tmp_path / "a.nii")
    assert read_mask(tmp_path / "a.nii", volume, label=1).array.sum() == 1
    for label, names in ((3, None), ("GTV", {"GTV": 3})):
        assert (read_mask(tmp_path / "a.nii", volume, label=label, names=names).array == (array == 3)).all()
    for options, match in (
        ({}, "holds the values"),
        ({"label": "GTV"}, "pass names="),
        ({"label": "x", "names": {"GTV": 3}}, "no structure 'x'; its names are {'GTV': 3}"),
        ({"label": 2}, "is empty"),
    ):
        with pytest.raises(ValueError, match=match):
            read_mask(tmp_path / "a.nii", volume, **options)
    assert not read_mask(tmp_path / "a.nii", volume, label=2, allow_empty=True).array.any()
    image = sitk.GetImageFromArray(array)
    image.SetMetaData("Segment0_Name", "GTV")
    image.SetMetaData("Segment0_LabelValue", "3")
    sitk.WriteImage(image, str(tmp_path / "a.seg.nrrd"))
    assert (read_mask(tmp_path / "a.seg.nrrd", label="GTV").array == (array == 3)).all()


def test_labels_that_were_stored_as_fractions_are_whole(tmp_path):
    labels = np.zeros((6, 5, 4), np.float32)
    labels[1:3], labels[3] = 1, 2.0000002
    nibabel.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "a.nii")
    assert read_mask(tmp_path / "a.nii", label=2).array.sum() == 20


def test_a_mask_with_other_voxels_is_compared_in_millimetres(tmp_path):
    volume = make((8, 20, 20), (3, 0.8, 0.8))
    coarse = make((8, 10, 10), (3, 1.6, 1.6), first=(-19.6, 30.4, 100))
    write_nifti(inside(coarse), tmp_path / "a.nii")
    with pytest.raises(ValueError, match=r"\(8, 10, 10\) instead of \(8, 20, 20\), of 3 x 1.6 x 1.6 instead of"):
        read_mask(tmp_path / "a.nii", volume)
    mask = read_mask(tmp_path / "a.nii", volume, resample=True)
    assert mask.array.sum() == 4 * inside(coarse).array.sum()
    assert same_geometry(mask, volume)
    write_nifti(inside(make((8, 20, 20), (3, 0.8, 0.8), first=(-18, 30, 100))), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="up to 2.0 mm apart"):
        read_mask(tmp_path / "a.nii", volume)
    part = Volume(inside(volume).array[1:6, :8], volume.affine, "label")
    affine = volume.affine.copy()
    affine[:3, 3] = volume.places((1, 0, 0))
    write_nifti(Volume(part.array, affine, "label"), tmp_path / "a.nii")
    assert (read_mask(tmp_path / "a.nii", volume).array == inside(volume).array).all()
    with pytest.raises(ValueError, match="beyond its scan"):
        read_mask(tmp_path / "a.nii", Volume(volume.array[:2], volume.affine))
    far = make((8, 20, 20), (3, 0.8, 0.9), first=(500, 30, 100))
    with pytest.raises(ValueError, match="outside of its scan"):
        read_mask(tmp_path / "a.nii", far, resample=True)


# -- DICOM segmentations -----------------------------------------------------------------------------------------------


def test_probabilities_arrays_and_empty_masks_are_not_written(tmp_path):
    write_series(tmp_path / "ct")
    scan = read_scan(tmp_path / "ct")
    mask = inside(scan)
    wrong = (
        (replace(mask, array=np.where(mask.array, 0.7, 0.2)), ValueError, "other values than 0 and 1.*array > 0.5"),
        (replace(mask, array=mask.array * np.uint8(2)), ValueError, "other values than 0 and 1"),
        (replace(mask, array=mask.array & False), ValueError, "is empty; leave it out"),
        (Volume(mask.array[1:], mask.affine, "label"), ValueError, "has other voxels than the scan"),
        (mask.array, TypeError, r"must be a mmdls.scans.Volume; got ndarray.*Volume\(array, scan.affine"),
    )
    for one, error, message in wrong:
        with pytest.raises(error, match=message):
            write_segmentation({"lesion": one}, tmp_path / "seg.dcm", tmp_path / "ct")
    with pytest.raises(TypeError, match="must be a mmdls.scans.Volume; got ndarray"):
        write_nifti(mask.array, tmp_path / "mask.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct"]
    write_segmentation({"lesion": replace(mask, array=mask.array * 1.0)}, tmp_path / "seg.dcm", tmp_path / "ct")
    assert (read_mask(tmp_path / "seg.dcm", scan).array == mask.array).all()


@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(180, 0, 0)])
def test_segmentations_are_read_back_equal(tmp_path, turn):
    write_series(tmp_path / "ct", turn=turn)
    scan = read_scan(tmp_path / "ct")
    masks = {"lesion": inside(scan), "spot": inside(scan, (3, 2, 2), (4, 3, 4))}
    write_segmentation(masks, tmp_path / "seg.dcm", tmp_path / "ct")
    for number, (name, mask) in enumerate(masks.items(), start=1):
        for label in (name, number):
            back = read_mask(tmp_path / "seg.dcm", scan, label=label)
            assert (back.array == mask.array).all() and same_geometry(back, scan)
    # highdicom, which is not used to read, finds the same.
    import highdicom

    volume = highdicom.seg.segread(tmp_path / "seg.dcm").get_volume(segment_numbers=[1])
    own = read_mask(tmp_path / "seg.dcm", label=1)
    places = volume.map_indices_to_reference(np.argwhere(volume.array[..., 0]))
    indices = own.indices(places)
    assert np.abs(indices - np.rint(indices)).max() < 1e-3
    assert sorted(np.rint(indices).astype(int).tolist()) == np.argwhere(own.array).tolist()
    for label, match in ((None, "has 2 segments; choose one by label="), ("lung", r"of {1: 'lesion', 2: 'spot'}")):
        with pytest.raises(ValueError, match=match):
            read_mask(tmp_path / "seg.dcm", scan, label=label)
    content = (tmp_path / "seg.dcm").read_bytes()
    assert not [value for value in (*IDENTIFYING, "20200301") if value.encode() in content]


def test_what_is_no_segmentation_is_refused(tmp_path):
    write_series(tmp_path / "ct")
    scan = read_scan(tmp_path / "ct")
    with pytest.raises(ValueError, match="other voxels"):
        write_segmentation({"a": make()}, tmp_path / "seg.dcm", tmp_path / "ct")
    with pytest.raises(ValueError, match="no mask to write"):
        write_segmentation({}, tmp_path / "seg.dcm", tmp_path / "ct")
    with pytest.raises(ValueError, match="neither a structure set"):
        read_mask(tmp_path / "ct" / "00-0.dcm", scan)
    with pytest.raises(ValueError, match="holds 5 DICOM files"):
        read_mask(tmp_path / "ct", scan)
    write_segmentation({"a": inside(scan)}, tmp_path / "seg.dcm", tmp_path / "ct")
    write_segmentation({"a": inside(scan), "b": inside(scan)}, tmp_path / "two.dcm", tmp_path / "ct")
    for named in ([], [1, 1], [9]):
        dataset = dcmread(tmp_path / "two.dcm")
        frame = dataset.PerFrameFunctionalGroupsSequence[0]
        frame.SegmentIdentificationSequence = [item(ReferencedSegmentNumber=number) for number in named]
        dataset.save_as(tmp_path / "odd.dcm")
        with pytest.raises(ValueError, match="name none of its segments, or several"):
            read_mask(tmp_path / "odd.dcm", scan, label="a", allow_empty=True)
    dataset = dcmread(tmp_path / "seg.dcm")
    dataset.SegmentationType = "FRACTIONAL"
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(ValueError, match="fractions"):
        read_mask(tmp_path / "seg.dcm", scan)
    with pytest.raises(FileNotFoundError, match="no mask"):
        read_mask(tmp_path / "nothing.nii")
    (tmp_path / "a.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="no mask that can be read"):
        read_mask(tmp_path / "a.npy", scan)
