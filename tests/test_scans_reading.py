"""Files to volumes: SimpleITK is the oracle of places and values; what has no place or unit is refused."""

import shutil
import struct
import sys
import warnings
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from mmdls.scans import Volume, read_mask, read_scan
from tests.scanner import PET, SECRET, item, write_enhanced, write_series
from tests.test_scans import OBLIQUE, from_sitk, rotation

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is the oracle of geometry")
IDENTIFYING = (SECRET, "Muster", "X-4711", "19470229", "998877", "Klinik")


def by_simpleitk(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return sitk.DICOMOrient(reader.Execute(), "LPS")


def refuse(path, match, **options):
    with pytest.raises(ValueError, match=match) as caught:
        read_scan(path, **options)
    assert not [value for value in IDENTIFYING if value in str(caught.value)]
    assert caught.value.__cause__ is None


# -- DICOM -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [3.0, -2.5])
@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(90, 0, 0), rotation(0, 90, 0), rotation(180, 0, 0)])
def test_a_series_equals_simpleitk_to_the_voxel(tmp_path, turn, step):
    write_series(tmp_path, turn=turn, step=step)
    volume = read_scan(tmp_path)
    array, affine = from_sitk(by_simpleitk(tmp_path))
    assert (volume.array == array).all()
    assert volume.affine == pytest.approx(affine, abs=1e-4)
    assert (volume.unit, volume.modality, volume.orientation) == ("HU", "CT", "SPL")
    assert volume.array.dtype == np.int16


def test_slices_are_sorted_by_place_and_scaled_each_by_its_own_slope(tmp_path):
    stored = write_series(tmp_path, each=lambda i: {"RescaleSlope": i + 0.5}, **PET)
    volume = read_scan(tmp_path)
    assert volume.array == pytest.approx(stored * (np.arange(5) + 0.5)[:, None, None])
    assert (volume.unit, volume.modality) == ("Bq/mL", "PT")
    assert volume.spacing == pytest.approx((3.0, 0.7, 0.8))
    assert volume.affine[:3, 3] == pytest.approx((-20, 30, 100))


def test_monochrome1_says_how_a_scan_is_shown_not_what_it_holds(tmp_path):
    stored = write_series(tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert (read_scan(tmp_path).array == stored - 1024).all()


def test_several_slices_in_one_file(tmp_path):
    stored = write_enhanced(tmp_path / "one.dcm")
    volume = read_scan(tmp_path / "one.dcm")
    assert (volume.array == stored - 1024).all()
    array, affine = from_sitk(sitk.ReadImage(str(tmp_path / "one.dcm")))
    assert (volume.array == array).all() and volume.affine == pytest.approx(affine)
    assert read_scan(tmp_path).array.shape == (5, 6, 8)
    write_enhanced(tmp_path / "one.dcm", NumberOfFrames=4)
    refuse(tmp_path / "one.dcm", "another NumberOfFrames")
    write_enhanced(tmp_path / "one.dcm", SharedFunctionalGroupsSequence=None)
    refuse(tmp_path / "one.dcm", "without ImageOrientationPatient")


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_slices(tmp_path, syntax):
    stored = write_series(tmp_path)
    for file in tmp_path.iterdir():
        dataset = dcmread(file)
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(file)
    assert (read_scan(tmp_path).array == stored - 1024).all()


def compress(stored, compressor, folder):
    """The frames of slices as SimpleITK compresses them, and their transfer syntax."""
    frames = []
    for pixels in stored:
        image, writer = sitk.GetImageFromArray(pixels[None]), sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(str(folder / "frame.dcm"))
        writer.Execute(image)
        small = dcmread(folder / "frame.dcm")
        frames.append(get_frame(small.PixelData, 0, number_of_frames=1))
    assert small.file_meta.TransferSyntaxUID.is_compressed
    return frames, small.file_meta.TransferSyntaxUID


def replace_pixels(path, frames, syntax):
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID, dataset.PixelData = syntax, encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("shown", ["MONOCHROME1", "MONOCHROME2"])
def test_slices_compressed_by_another_program(tmp_path, compressor, shown):
    stored = np.random.default_rng(0).integers(-500, 2000, (3, 64, 64)).astype(np.int16)
    frames, syntax = compress(stored, compressor, tmp_path)
    write_series(tmp_path / "ct", stored, PhotometricInterpretation=shown, RescaleSlope=2)
    for file in (tmp_path / "ct").iterdir():
        replace_pixels(file, [frames[int(file.stem[-1])]], syntax)
    assert (read_scan(tmp_path / "ct").array == 2 * stored - 1024).all()


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_several_slices_in_one_compressed_file_are_scaled_once(tmp_path, compressor):
    stored = np.random.default_rng(0).integers(-500, 2000, (3, 64, 64)).astype(np.int16)
    frames, syntax = compress(stored, compressor, tmp_path)
    write_enhanced(tmp_path / "ct.dcm", stored)
    replace_pixels(tmp_path / "ct.dcm", frames, syntax)
    assert (read_scan(tmp_path / "ct.dcm").array == stored - 1024).all()


def by_pillow(stored, kind, **how):
    from PIL import Image

    frames = []
    for pixels in stored:
        frame = BytesIO()
        Image.fromarray(pixels).save(frame, kind, **how)
        frames.append(frame.getvalue())
    return frames


def write_compressed(folder, stored, frames, syntax, **headers):
    write_series(folder, stored, **headers)
    for file in folder.iterdir():
        replace_pixels(file, [frames[int(file.stem[-1])]], syntax)


CODESTREAM = {"no_jp2": True, "irreversible": False}
PLAIN = {"PixelRepresentation": 0}
EIGHT = {**PLAIN, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("syntax", "headers"),
    [
        (JPEG2000Lossless, PLAIN),
        (JPEG2000Lossless, PLAIN | {"BitsStored": 12, "HighBit": 11}),
        (JPEG2000Lossless, {"PixelRepresentation": 1}),  # which JPEG 2000 itself does not say
        (JPEG2000, PLAIN | {"LossyImageCompression": "00"}),  # whose name stands for both
    ],
)
def test_jpeg_2000_without_loss_is_exact(tmp_path, syntax, headers):
    stored = np.random.default_rng(0).integers(0, 4096, (3, 32, 32)).astype(np.uint16)
    stored[:, 0] = 4095
    if headers.get("PixelRepresentation"):
        stored = (stored.astype(np.int32) - 1024).astype(np.int16)
    frames = by_pillow(stored.view(np.uint16), "JPEG2000", **CODESTREAM)
    write_compressed(tmp_path, stored, frames, syntax, **headers)
    assert (read_scan(tmp_path).array == stored.astype(int) - 1024).all()


def test_signs_of_jpeg_2000_that_the_header_denies_are_refused(tmp_path):
    stored = np.random.default_rng(0).integers(-500, 2000, (3, 64, 64)).astype(np.int16)
    frames, syntax = compress(stored, "JPEG2000", tmp_path)
    write_compressed(tmp_path / "ct", stored, frames, syntax, **PLAIN)
    refuse(tmp_path / "ct", "pixels with a sign, and a header without")


def test_compression_with_loss_is_said(tmp_path):
    from PIL import Image

    greys = (np.add.outer(np.arange(64), 2 * np.arange(64)) + np.arange(3)[:, None, None]).astype(np.uint8)
    frames = by_pillow(greys, "JPEG", quality=60)
    decoded = np.stack([np.asarray(Image.open(BytesIO(frame))) for frame in frames])
    assert (decoded != greys).any()
    write_compressed(tmp_path / "jpeg", greys, frames, JPEGBaseline8Bit, **EIGHT)
    frames = by_pillow(greys.astype(np.uint16), "JPEG2000", no_jp2=True, irreversible=True, quality_layers=[50])
    again = np.stack([np.asarray(Image.open(BytesIO(frame))) for frame in frames])
    write_compressed(tmp_path / "jpeg2000", greys.astype(np.uint16), frames, JPEG2000, **PLAIN)
    write_series(tmp_path / "near", greys.astype(np.uint16), **PLAIN)
    for file in (tmp_path / "near").iterdir():
        dataset = dcmread(file)
        dataset.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
        dataset.save_as(file)
    write_series(tmp_path / "once", greys.astype(np.uint16), LossyImageCompression="01", **PLAIN)
    for name, values in (("jpeg", decoded), ("jpeg2000", again), ("near", None), ("once", greys)):
        with pytest.warns(UserWarning, match=f"{name}' of patient 7 was compressed with loss") as caught:
            found = read_scan(tmp_path / name, patient=7).array + 1024
        assert caught[0].filename == __file__
        assert (found == values).all() if values is not None else 0 < np.abs(found - greys).max() <= 3


@pytest.mark.parametrize("syntax", [HTJ2KLossless, MPEG2MPML, "1.2.3.4"])
def test_compression_that_nothing_decodes_is_refused(tmp_path, syntax):
    stored = np.zeros((3, 32, 32), np.uint16)
    write_compressed(tmp_path, stored, by_pillow(stored, "JPEG2000", **CODESTREAM), UID(syntax), **PLAIN)
    refuse(tmp_path, "nothing installed here decodes .*store it uncompressed")


@pytest.mark.filterwarnings("ignore:.*compressed with loss")
@pytest.mark.parametrize("kind", ["JPEG2000", "JPEG"])
def test_compressed_slices_that_are_cut_off_are_refused(tmp_path, kind):
    stored = np.random.default_rng(0).integers(0, 256, (3, 32, 32)).astype(np.uint8)
    syntax = {"JPEG2000": JPEG2000Lossless, "JPEG": JPEGBaseline8Bit}[kind]
    for part in (0.3, 0.9):
        frames = [frame[: int(len(frame) * part)] for frame in by_pillow(stored, kind)]
        write_compressed(tmp_path / f"{part}", stored, frames, syntax, **EIGHT)
        refuse(tmp_path / f"{part}", "cannot be decoded .*cut off or damaged")


def test_a_file_alone_is_one_slice(tmp_path):
    stored = write_series(tmp_path)
    volume = read_scan(tmp_path / "00-0.dcm")
    assert (volume.array == stored[:1] - 1024).all()
    assert volume.spacing == pytest.approx((3, 0.7, 0.8))
    write_series(tmp_path, SliceThickness=None)
    refuse(tmp_path / "00-0.dcm", "without SliceThickness")


def test_one_series_is_chosen_of_several(tmp_path):
    ct = write_series(tmp_path, SeriesNumber=2)
    pet = write_series(tmp_path / "pet", SeriesNumber=5, **PET)
    for file in (tmp_path / "pet").iterdir():
        shutil.move(file, tmp_path / f"pet-{file.name}")
    (tmp_path / "pet").rmdir()
    refuse(tmp_path, r"2 series, 2 of which fit .*CT series number 2 \(5 files\), PT series number 5 \(5 files\)")
    assert (read_scan(tmp_path, modality="CT").array == ct - 1024).all()
    assert (read_scan(tmp_path, series=5).array == pet * 2).all()
    uid = dcmread(tmp_path / "00-0.dcm").SeriesInstanceUID
    assert read_scan(tmp_path, series=uid).modality == "CT"
    refuse(tmp_path, "0 of which fit modality='MR'", modality="MR")
    refuse(tmp_path, "0 of which fit", series=4)
    write_series(tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    refuse(tmp_path / "scout", "no CT, PET or MR scan, only scout views")
    write_series(tmp_path / "shots", SOPClassUID=SecondaryCaptureImageStorage)
    refuse(tmp_path / "shots", "only Secondary Capture Image Storage")


def remove(name):
    def change(folder):
        (folder / name).unlink()

    return change


def again(folder):
    shutil.copy(folder / "00-0.dcm", folder / "copy.dcm")


@pytest.mark.parametrize(
    ("change", "headers", "match"),
    [
        (remove("03-2.dcm"), {}, "slices are missing"),
        (remove("07-1.dcm"), {}, "slices are missing"),
        (again, {}, "at the place of another one"),
        (None, {"each": lambda i: {"ImagePositionPatient": [0, 0, 5]}}, "at the place of another one"),
        (None, {"each": lambda i: {"ImagePositionPatient": [0, i * 0.8, i * 3]}}, "14.9 degrees.*gantry was tilted"),
        (None, {"each": lambda i: {"PixelSpacing": [1, 1 + i]}}, "different PixelSpacing"),
        (None, {"each": lambda i: {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0] if i else [0, 1, 0, 1, 0, 0]}},
         "different ImageOrientationPatient"),
        (None, {"each": lambda i: {"FrameOfReferenceUID": f"1.2.{i + 1}"}}, "different FrameOfReferenceUID"),
        (None, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "places no pixels"),
        (None, {"PixelSpacing": [0, 1]}, "places no pixels"),
        (None, {"PixelSpacing": None}, "without PixelSpacing"),
        (None, {"ImagePositionPatient": None}, "without ImagePositionPatient"),
        (None, {"ImageOrientationPatient": None}, "without ImageOrientationPatient"),
        (None, {"RescaleSlope": None}, "without RescaleSlope"),
        (None, {"RescaleIntercept": None}, "without RescaleSlope and RescaleIntercept"),
        (None, {"each": lambda i: {"PatientID": f"P{i % 2}"}}, "different PatientID"),
        (None, {"each": lambda i: {"ConvolutionKernel": f"B{i % 2}"}}, "different ConvolutionKernel"),
        (None, {"ModalityLUTSequence": [item()]}, "table of values"),
        (None, {"RescaleType": "MGML"}, "RescaleType is not HU"),
        (None, {"RescaleType": "US"}, "pass unit='HU'"),
        (None, {"SamplesPerPixel": 3}, "colour"),
        (None, {"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        (None, {"Rows": 60}, "cannot be decoded"),
        (None, {"each": lambda i: {"Rows": 6 + i % 2}}, "different Rows"),
        (None, {"Rows": 60000, "Columns": 60000}, "more than can be read"),
        (None, {"Rows": None}, "no Rows"),
        (None, {**PET, "Units": None}, "no Units"),
    ],
)  # fmt: skip
def test_what_is_no_regular_grid_of_known_values_is_refused(tmp_path, change, headers, match):
    write_series(tmp_path, **headers)
    if change:
        change(tmp_path)
    refuse(tmp_path, match)


def keep(folder, numbers):
    for i in set(range(5)) - set(numbers):
        next(folder.glob(f"*-{i}.dcm")).unlink()


@pytest.mark.parametrize(
    ("numbers", "headers", "match"),
    [
        (range(5), {"SpacingBetweenSlices": 3.0, "SliceThickness": 1.0, "ImagesInAcquisition": 5}, None),
        (range(5), {"SliceThickness": 1.0, "each": lambda i: {"InstanceNumber": 1 + i + (i > 2)}}, None),
        (range(5), {"ImagesInAcquisition": 7, "each": lambda i: {"AcquisitionNumber": i // 3}}, None),
        (range(5), {"InstanceNumber": None}, None),
        ((0, 2, 4), {}, "of InstanceNumber every 2. one is there only"),
        ((0, 2, 4), {"SpacingBetweenSlices": 3.0}, "SpacingBetweenSlices is 3 mm, and they lie 6 mm apart; of Inst"),
        ((0, 2, 4), {"SpacingBetweenSlices": 6.0, "each": lambda i: {"InstanceNumber": 1 + i // 2}}, None),
        ((1, 2, 3, 4), {"ImagesInAcquisition": 5}, "ImagesInAcquisition is 5, and there are 4"),
        ((0, 1, 2, 3), {**PET, "NumberOfSlices": 5}, "NumberOfSlices is 5, and there are 4"),
    ],
)
def test_slices_that_headers_tell_of_and_are_not_there(tmp_path, numbers, headers, match):
    write_series(tmp_path, **headers)
    keep(tmp_path, numbers)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(read_scan(tmp_path).array) == len(numbers)
    assert [match in str(one.message) for one in caught] == ([] if match is None else [True])


def test_units_are_those_of_the_header(tmp_path):
    write_series(tmp_path / "ct", RescaleType="US")
    assert read_scan(tmp_path / "ct", unit="HU").unit == "HU"
    write_series(tmp_path / "pet", **PET)
    refuse(tmp_path / "pet", "values in Bq/mL, and unit='HU'", unit="HU")
    refuse(tmp_path / "ct", "RescaleType|no PET", unit="SUV")
    refuse(tmp_path / "pet", "its own spacing", spacing=1)


def test_values_of_another_kind_are_not_repeated(tmp_path):
    """Elements hold a name where a number belongs; neither errors nor warnings tell it."""
    write_series(tmp_path)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        place = content.index(b"\x28\x00\x30\x00DS") + 8
        length = int.from_bytes(content[place - 2 : place], "little")
        file.write_bytes(content[:place] + SECRET.encode().ljust(length)[:length] + content[place + length :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse(tmp_path, "2 finite numbers in PixelSpacing")


def test_files_beside_a_series(tmp_path):
    write_series(tmp_path)
    for name in ("notes.txt", ".hidden", "DICOMDIR", "Thumbs.db"):
        (tmp_path / name).write_text("x" * 200)
    assert read_scan(tmp_path).shape == (5, 6, 8)
    (tmp_path / "mislabelled.dcm").write_bytes(b"x" * 500)
    refuse(tmp_path, "other files or folders beside")
    refuse(tmp_path / "mislabelled.dcm", "no scan that can be read")


# -- other formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", [None, OBLIQUE, rotation(90, 0, 0), rotation(100, 80, -170)])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_formats_with_geometry_equal_simpleitk(tmp_path, name, turn):
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(-900, 900, (4, 5, 6)).astype(np.int16))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-10, 20, 55))
    image.SetDirection((np.eye(3) if turn is None else turn).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / name), useCompression=name != "a.nii")
    volume = read_scan(tmp_path / name, unit="HU", modality="CT")
    array, affine = from_sitk(sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / name)), "LPS"))
    assert (volume.array == array).all()
    assert volume.affine == pytest.approx(affine, abs=1e-3)
    assert (volume.unit, volume.modality) == ("HU", "CT")
    refuse(tmp_path / name, "its own spacing", spacing=1)
    refuse(tmp_path / name, "no DICOM", series=1)


def test_formats_without_geometry_need_spacing(tmp_path):
    from PIL import Image

    array = np.random.default_rng(1).integers(0, 900, (3, 5, 6)).astype(np.uint16)
    np.save(tmp_path / "a.npy", array)
    for suffix in ("png", "tif"):
        (tmp_path / suffix).mkdir()
        for i, one in enumerate(array):
            Image.fromarray(one).save(tmp_path / suffix / f"slice_{i}.{suffix}")
    for place in (tmp_path / "a.npy", tmp_path / "png", tmp_path / "tif"):
        refuse(place, "no geometry: pass spacing")
        volume = read_scan(place, spacing=(3, 0.8, 0.7))
        assert (volume.array == array).all()
        assert (volume.spacing, volume.unit) == ((3.0, 0.8, 0.7), "")
        refuse(place, "spacing is one length", spacing=-1)


def test_a_nifti_without_a_place_is_refused(tmp_path):
    import nibabel

    path = tmp_path / "a.nii"
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None)
    image.to_filename(path)
    refuse(path, "no orientation codes")
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    image.header.set_xyzt_units("micron")
    image.to_filename(path)
    refuse(path, "in micron instead of mm")
    nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4) + 0.1 * np.eye(4, k=1)).to_filename(path)
    with pytest.raises(ValueError, match="a.nii.*orthogonal"):
        read_scan(path)
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4))
    image.set_sform(np.eye(4), 1)
    for qform, code in ((np.diag([2, 2, 2, 1]), 1), (np.eye(4) + 3 * np.eye(4, k=3), 1)):
        image.set_qform(qform, code)
        image.to_filename(path)
        refuse(path, "two places .* differ")
    image.set_qform(np.diag([2, 2, 2, 1]), 0)
    image.to_filename(path)
    assert read_scan(path).spacing == (1, 1, 1)
    nibabel.Nifti1Image(np.full((3, 4, 5), np.nan, np.float32), np.eye(4)).to_filename(path)
    with pytest.raises(ValueError, match="a.nii.*finite"):
        read_scan(path)


# Bytes of a NIfTI header.
CODES, SLOPE, SIDE, ROW, UNIT = (252, 254), (112, "ff"), (80, "f"), (280, "f"), (123, "B")
NAN, INF = np.nan, np.inf


def write_header(path, *changes):
    """A NIfTI of sides of 1, 2 and 3 mm, with bytes of its header changed."""
    import nibabel

    image = nibabel.Nifti1Image((np.arange(60).reshape(3, 4, 5) - 10).astype(np.int16), np.diag([1.0, 2, 3, 1]))
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    image.to_filename(path)
    content = bytearray(path.read_bytes())
    for (place, kind), *values in changes:
        struct.pack_into("<" + kind, content, place, *values)
    path.write_bytes(content)
    return path


QFAC = (76, "f")  # the first of pixdim
QFORM, SFORM = ((CODES[1], "h"), 0), ((CODES[0], "h"), 0)  # the one that counts alone


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ([(SLOPE, INF, 0)], "unknown scale .*finite"),
        ([(SLOPE, -INF, 0)], "unknown scale"),
        ([(SLOPE, NAN, 5)], "unknown scale"),
        ([(SLOPE, NAN, INF)], "unknown scale"),
        ([(SLOPE, 1, NAN)], "invalid intercept"),
        ([(SLOPE, 1, INF)], "invalid intercept"),
        *[([QFORM, (SIDE, side)], r"has voxels of \[") for side in (-1, 0, NAN, INF)],
        *[([form, (row, 1e-4)], "3 x 2 x 0.0001 mm.*metres") for form, row in ((QFORM, SIDE), (SFORM, ROW))],
        *[([form, (row, 1e4)], "3 x 2 x 1e.04 mm") for form, row in ((QFORM, SIDE), (SFORM, ROW))],
        *[([SFORM, (ROW, value)], "places no volume") for value in (0, NAN, INF, 1e-30, 1e30)],
        ([SFORM, ((292, "f"), 1e30)], "lies 1e.30 mm away"),
        ([SFORM, ((292, "f"), INF)], "places no volume"),
        ([QFORM, ((256, "f"), NAN)], "places no volume"),
        *[([QFORM, (QFAC, value)], r"in pixdim\[0\], where .* 1 or -1") for value in (2, -2, NAN, INF)],
        ([((108, "f"), 0)], "voxels inside its header .vox_offset"),
        ([(UNIT, 1)], "in meter instead of mm; write it"),
        ([(UNIT, 3)], "in micron instead of mm; write it"),
        ([(UNIT, 5)], "in another unit instead of mm; write it"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:invalid value")
def test_odd_headers_of_nifti_are_refused(tmp_path, changes, match):
    path = write_header(tmp_path / "a.nii", *changes)
    for read in (read_scan, lambda place: read_mask(place, label=3)):
        with pytest.raises(ValueError, match=match):
            read(path)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ([(SLOPE, 0, 5)], (1, 0)),  # the standard: values as stored
        ([(SLOPE, 0, NAN)], (1, 0)),
        ([(SLOPE, NAN, NAN)], (1, 0)),  # never set
        ([(SLOPE, NAN, 0)], (1, 0)),
        ([(SLOPE, 2, 5)], (2, 5)),
        ([(SLOPE, -1, 5)], (-1, 5)),
        *[([SFORM, (SIDE, side)], (1, 0)) for side in (-1, 0, NAN, INF, 1e30)],  # the sform tells the sides
        *[([SFORM, (QFAC, value)], (1, 0)) for value in (2, NAN)],
        ([(UNIT, 0)], (1, 0)),
        ([(UNIT, 2 | 8)], (1, 0)),  # and seconds
    ],
)
def test_odd_headers_of_nifti_that_say_enough_are_read_right(tmp_path, changes, scale):
    volume = read_scan(write_header(tmp_path / "a.nii", *changes))
    stored = (np.arange(60).reshape(3, 4, 5) - 10).transpose(2, 1, 0)[:, ::-1, ::-1]
    assert (volume.array == stored * scale[0] + scale[1]).all()
    assert volume.spacing == (3, 2, 1)


def test_bytes_in_the_other_order_become_those_of_the_machine(tmp_path):
    import nibabel

    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    header = nibabel.Nifti1Header(endianness=">" if sys.byteorder == "little" else "<")
    nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]), header), tmp_path / "a.nii")
    found = read_scan(tmp_path / "a.nii").array
    assert found.dtype.isnative and (found == array.T).all()


def test_handedness_of_zero_is_one_as_the_standard_says(tmp_path):
    stated, mirrored, unset = (
        read_scan(write_header(tmp_path / f"{value}.nii", QFORM, (QFAC, value))) for value in (1, -1, 0)
    )
    assert (unset.array == stated.array).all() and (unset.affine == stated.affine).all()
    assert (mirrored.array == stated.array[::-1]).all()


@pytest.mark.parametrize("unit", [1, 3])
def test_other_units_of_length_are_refused_in_every_place(tmp_path, unit):
    from mmdls import SliceEncoder, prepare_cohort
    from mmdls.images import voxel_spacing
    from mmdls.scans import ScanView

    path = str(write_header(tmp_path / "a.nii", (UNIT, unit)))
    table = pd.DataFrame({"patient_id": ["P1"], "ct": path, "lesion": path})
    match = f"in {'meter' if unit == 1 else 'micron'} instead of mm"
    with pytest.raises(ValueError, match=match):
        voxel_spacing(path)
    cells = pd.DataFrame({"ct_image": [path] * 4})
    with pytest.raises(ValueError, match=match):
        SliceEncoder(scan=ScanView(window="lung")).fit(cells, pd.DataFrame({"ajcc_stage": [0, 1, 0, 1]}))
    with pytest.warns(UserWarning, match="1 of 1 patients are not complete"):
        log = prepare_cohort(table, tmp_path / "cohort", radiomics=False)
    assert log["status"].item() == "failed" and match in log["reason"].item()


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("a.nrrd", "type: int16\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\n\n", "no space"),
        ("a.nrrd", "type: int16\ndimension: 3\nspace: scanner-xyz\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
         "space origin: (0,0,0)\nsizes: 2 2 2\nencoding: raw\nendian: little\n\n", "another space"),
        ("a.nrrd", "type: int16\ndimension: 3\nspace: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
         "space origin: (0,0,0)\nsizes: 90000 90000 90000\nencoding: raw\nendian: little\n\n", "more than can be read"),
        ("a.nrrd", "type: int16\ndimension: 3\nspace: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
         "space origin: (0,0,0)\nsizes: 2 2 2\nencoding: raw\nendian: little\ndata file: ../b.raw\n\n", "other files"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
         "no ElementSpacing, TransformMatrix, Offset"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
         "Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementDataFile = /etc/hostname\n", "other files"),
        ("a.nrrd", "type: int16\ndimension: 3\nspace: RAS\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
         "space origin: (0,0,0)\nsizes: 2 2 2\nencoding: raw\nendian: little\nspace units: \"cm\" \"cm\" \"cm\"\n\n",
         "another space units"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
         "Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nDistanceUnits = cm\nElementDataFile = LOCAL\n",
         "another DistanceUnits"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
         "Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nHeaderSize = 4\nElementDataFile = LOCAL\n",
         "another HeaderSize"),
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementSpacing = 1 1 1\n"
         "Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nElementToIntensityFunctionSlope = 2\n"
         "ElementDataFile = LOCAL\n",
         "another ElementToIntensityFunctionSlope"),
    ],
)  # fmt: skip
def test_headers_without_geometry_or_with_others_data_are_refused(tmp_path, name, text, match):
    start = "NRRD0004\n" if name == "a.nrrd" else ""
    (tmp_path / name).write_bytes((start + text).encode() + bytes(16))
    refuse(tmp_path / name, match)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float64])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "packed.nrrd", "packed.mha"])
def test_voxels_of_another_length_than_their_header_states_are_refused(tmp_path, name, kind):
    array = np.arange(60).reshape(3, 4, 5).astype(kind)
    path, whole_length = tmp_path / name, array.nbytes
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), useCompression=name.startswith("packed"))
    voxels = tmp_path / "a.raw" if (tmp_path / "a.raw").exists() else path
    assert (np.sort(read_scan(path).array.ravel()) == array.ravel()).all()
    whole = voxels.read_bytes()
    if name.startswith("packed"):  # the header claims another number of slices
        sizes = b"sizes: 5 4 3" if name.endswith("nrrd") else b"DimSize = 5 4 3"
        for n in (2, 4):
            voxels.write_bytes(whole.replace(sizes, sizes[:-1] + b"%d" % n))
            refuse(path, f"{whole_length} bytes .* states {whole_length // 3 * n}")
        return
    for change, content in ((-1, whole[:-1]), (7, whole + bytes(7))):
        voxels.write_bytes(content)
        refuse(path, f"has {whole_length + change} bytes .* states {whole_length};")


def test_no_scan_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no scan"):
        read_scan(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="there is no scan"):
        read_scan("")
    for name in ("a.dcm", "a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.npy", "a.txt", "a"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match="a"):
            read_scan(tmp_path / name, spacing=None)
    np.save(tmp_path / "o.npy", np.array([[[{}]]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="no array of numbers"):
        read_scan(tmp_path / "o.npy", spacing=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no PNG slice"):
        read_scan(tmp_path / "empty")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    refuse(tmp_path / "deep", "1 folders or notes")


def test_only_the_stored_bits_count(tmp_path):
    values = np.random.default_rng(0).integers(-1000, 1000, (3, 6, 8)).astype(np.int16)
    twelve = {"BitsStored": 12, "HighBit": 11}
    for name, stored in (("extended", values), ("cut", values & 0x0FFF), ("overlay", (values & 0x0FFF) | 0x5000)):
        write_series(tmp_path / name, stored.astype(np.int16), RescaleIntercept=0, **twelve)
        assert np.array_equal(read_scan(tmp_path / name).array, values), name
    write_series(tmp_path / "shifted", values, BitsStored=12, HighBit=15)
    with pytest.raises(ValueError, match="HighBit"):
        read_scan(tmp_path / "shifted")


def test_what_is_no_path_no_scan_or_masked_is_refused():
    for read in (read_scan, read_mask):
        with pytest.raises(TypeError, match="is a path; got NoneType"):
            read(None)
    with pytest.raises(TypeError, match="like is the scan as a Volume, such as read_scan gives it; got str"):
        read_mask("mask.nii.gz", "ct.nii.gz")
    with pytest.raises(ValueError, match="some of this array are masked"):
        Volume(np.ma.masked_equal(np.arange(8.0).reshape(2, 2, 2), 3), np.eye(4))
