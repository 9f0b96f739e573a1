"""Reading images: what folders, PNG files and arrays may hold; damaged files end in our own words."""

import gzip
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmdls.datasets import load_cohort
from mmdls.images import SliceStore, fingerprint, read_image, read_mask


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path):
    for i in range(1, 13):
        save(tmp_path / "ct" / f"slice_{i}.png", np.full((6, 5), i, np.uint8))
    return tmp_path / "ct"


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["", " ", "."])
def test_an_empty_path_is_not_the_working_folder(folder, monkeypatch, cell):
    monkeypatch.chdir(folder)
    for read in (read_image, read_mask, fingerprint):
        with pytest.raises(ValueError, match="path of an image of patient 'P1' is empty.*use None for a missing image"):
            read(cell, "P1")


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "desktop.ini", "._slice_3.png", ".hidden.png", "README.txt"]
)
def test_what_systems_and_people_leave_beside_slices_is_passed_over(folder, name):
    before = fingerprint(folder)
    (folder / name).write_bytes(b"\x00\x05\x16\x07")
    assert read_image(folder)[:, 0, 0].tolist() == list(range(1, 13))
    assert fingerprint(folder) == before


@pytest.mark.parametrize("name", ["slice_13.jpg", "slice_13.TIF", "IM0013", "13.dcm", "ct.nii.gz", "more.npy", "a.bmp"])
def test_what_may_be_a_slice_in_another_format_is_refused(folder, name):
    (folder / name).write_bytes(b"something")
    with pytest.raises(ValueError, match=rf"ct' of patient 'P1' holds \['{name}'\] beside its 12 PNG slices.*Convert"):
        read_image(folder, "P1")


def test_folders_beside_slices_are_refused(folder):
    (folder / "series_2").mkdir()
    with pytest.raises(ValueError, match=r"holds \['series_2'\] beside its 12 PNG slices"):
        read_image(folder)
    (folder / "series_2").rename(folder / "series_2.png")
    with pytest.raises(ValueError, match=r"holds \['series_2.png'\] beside its 12 PNG slices"):
        read_image(folder)


def test_slices_of_the_same_number_are_refused(folder):
    save(folder / "slice_01.png", np.zeros((6, 5), np.uint8))
    with pytest.raises(ValueError, match="'slice_01.png' and 'slice_1.png' in .* have the same place in the order"):
        read_image(folder)


def test_numbers_order_slices_wherever_they_stand(tmp_path):
    names = ["a1_z-2.png", "a1_z-10.png", "a2_z-1.png", "a10_z-1.png", "a10_z-1b.png", "\u00b2.png"]
    for i, name in enumerate(names):
        save(tmp_path / "ct" / name, np.full((2, 2), i, np.uint8))
    assert read_image(tmp_path / "ct")[:, 0, 0].tolist() == list(range(6))


def test_bit_depths_are_never_mixed(folder):
    save(folder / "slice_2.png", np.full((6, 5), 2, np.uint16))
    with pytest.raises(ValueError, match="ct' of patient 'P1' have different bit depths.*'uint16': 'slice_2.png'"):
        read_image(folder, "P1")
    (folder / "slice_2.png").unlink()
    Image.fromarray(np.ones((6, 5), bool)).save(folder / "slice_2.png")
    with pytest.raises(ValueError, match="different bit depths.*'bool': 'slice_2.png'"):
        read_image(folder)


def test_a_list_of_files_is_read_in_its_own_order(folder):
    files = [folder / f"slice_{i}.png" for i in (3, 1, 10)]
    assert read_image(files)[:, 0, 0].tolist() == [3, 1, 10]
    assert np.array_equal(read_image([str(file) for file in files]), read_image(tuple(files)))
    with pytest.raises(FileNotFoundError, match="slice_99.png' of patient 'P'"):
        read_image([files[0], folder / "slice_99.png"], "P")
    for wrong in ([], [np.zeros((2, 2))], [1, 2]):
        with pytest.raises(TypeError, match="an image of patient 'P' is a path, an array"):
            read_image(wrong, "P")


# -- kinds of PNG ----------------------------------------------------------------------------------------------------


def test_greys_are_read_as_they_are_stored(tmp_path):
    for dtype, high in ((bool, 1), (np.uint8, 255), (np.uint16, 65535)):
        pixels = (np.arange(30).reshape(6, 5) * high // 29).astype(dtype)
        read = read_image(save(tmp_path / "x.png", pixels))
        assert read.dtype == dtype and np.array_equal(read[0], pixels) and read.dtype.isnative


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_colours_are_refused(tmp_path, mode):
    Image.fromarray(np.zeros((4, 4), np.uint8)).convert(mode).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=rf"'x.png' in .* of patient 'P' is a colour image \(mode {mode}\)"):
        read_image(tmp_path / "x.png", "P")


def test_animated_and_other_formats_under_the_name_of_png_are_refused(tmp_path):
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (0, 9)]
    frames[0].save(tmp_path / "x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="is animated"):
        read_image(tmp_path / "x.png")
    for kind, pixels in (("JPEG", np.zeros((4, 4), np.uint8)), ("TIFF", np.zeros((4, 4), np.float32))):
        Image.fromarray(pixels).save(tmp_path / "x.png", format=kind)
        with pytest.raises(ValueError, match="is no image; remove it or replace it by a PNG file"):
            read_image(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is empty \(0 bytes\)"):
        read_image(tmp_path / "x.png")


def test_a_png_that_claims_a_billion_pixels_is_refused(tmp_path):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match="'x.png' in .* claims more pixels than a slice can have"):
        read_image(tmp_path / "x.png")


# -- arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, 2.0]), r"must have shape \(S, H, W\)"),
        (np.zeros((0, 4, 4)), "at least one slice"),
        (np.array(3.0), r"must have shape \(S, H, W\)"),
        (np.array([[["a"]]]), "must hold numbers; got <U1"),
        (np.array([[[1j]]]), "must hold numbers; got complex128"),
        (np.array([[[None]]]), "must hold numbers; got object"),
        (np.array([[[1.0, np.inf]]]), "1 pixels that are NaN or infinite"),
        (np.ma.masked_less(np.array([[[1, 5]]]), 3), "1 masked pixels"),
        (np.zeros((40, 50, 3), np.uint8), "the last axis looks like colours"),
    ],
)
def test_arrays_that_are_no_slices_are_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=f"the array of patient 'P' .*{message}"):
        read_image(array, "P")
    if not isinstance(array, np.ma.MaskedArray) and array.dtype != object:
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(ValueError, match=f"x.npy' of patient 'P' .*{message}"):
            read_image(tmp_path / "x.npy", "P")


def test_slices_that_may_stand_last_are_warned_about():
    volume = np.zeros((64, 64, 40), np.int16)
    with pytest.warns(UserWarning, match=r"read as 64 slices of 64 x 40 pixels.*moveaxis"):
        read_image(volume)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in ((40, 64, 64), (64, 64, 64), (12, 12, 8), (64, 70, 40)):
            read_image(np.zeros(shape, np.int16))


def test_numbers_from_another_machine_are_the_same_numbers(tmp_path):
    image = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    np.save(tmp_path / "x.npy", image)
    for cell in (image, tmp_path / "x.npy"):
        read = read_image(cell)
        assert read.dtype == np.int16 and read.dtype.isnative and np.array_equal(read, image)
    assert SliceStore.build([image], intensity_range=(0, 23)).mean == pytest.approx(0.5, abs=1e-3)


def test_an_archive_is_no_array(tmp_path):
    with (tmp_path / "x.npy").open("wb") as file:
        np.savez(file, image=np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="x.npy' of patient 'P' is no array of numbers"):
        read_image(tmp_path / "x.npy", "P")


# -- damaged files ---------------------------------------------------------------------------------------------------


def _samples(folder):
    nibabel = pytest.importorskip("nibabel")
    pixels = np.random.default_rng(0).integers(0, 255, (7, 6, 5), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "x.png")
    Image.fromarray(pixels[0].astype(np.uint16) * 200).save(folder / "y.png")
    np.save(folder / "x.npy", pixels)
    nibabel.save(nibabel.Nifti1Image(pixels, np.diag([-1.0, -1.0, 3.0, 1.0])), folder / "x.nii")
    (folder / "x.nii.gz").write_bytes(gzip.compress((folder / "x.nii").read_bytes()))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return _samples(tmp_path_factory.mktemp("whole"))


def test_an_array_of_another_length_than_its_header_states_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((2, 3, 4), np.int16))
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"0"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"expected {len(whole)} bytes .* found {len(content)}"):
            read_image(path)


@pytest.mark.parametrize("name", ["x.png", "y.png", "x.npy", "x.nii", "x.nii.gz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_in_our_own_words(samples, tmp_path, name, data):
    """Cut short, bytes changed, or any bytes at all: an array of numbers or a message that names the patient."""
    content = bytearray(samples[name])
    kind = data.draw(st.sampled_from(["cut", "changed", "any", "another"]))
    if kind == "cut":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    elif kind == "changed":
        for place, value in data.draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6)):
            content[place % len(content)] = value
    elif kind == "any":
        content = data.draw(st.binary(max_size=600))
    else:
        content = samples[data.draw(st.sampled_from(sorted(samples)))]
    path = tmp_path / f"z{name[1:]}"
    path.write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = read_image(path, "P77")
        except ValueError as error:
            assert "'P77'" in str(error) and path.name in str(error)
        else:
            assert image.ndim == 3 and image.dtype.kind in "buif" and np.isfinite(image).all()


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.nii", "x.nii.gz"])
def test_a_file_that_ends_too_early_is_never_read(samples, tmp_path, name):
    path = tmp_path / name
    # Behind the pixels of a PNG stand 16 bytes or so that hold none.
    for length in range(0, len(samples[name]) - 20, 7):
        path.write_bytes(samples[name][:length])
        with pytest.raises(ValueError, match="patient 'P77'"):
            read_image(path, "P77")


# -- the flat layout of a cohort -------------------------------------------------------------------------------------


@pytest.fixture
def flat(tmp_path):
    """Patients P1, P10 and P_2 with twelve slices each, whose greys tell patient and number; P3 has none."""
    root = tmp_path / "cohort"
    root.mkdir()
    rows = ["P1,LUAD", "P10,LUSC", "P_2,LUAD", "P3,LUSC"]
    (root / "clinical.csv").write_text("\n".join(["patient_id,subtype", *rows]) + "\n")
    for k, patient in enumerate(("P1", "P10", "P_2")):
        for i in range(1, 13):
            save(root / "images" / f"{patient}_{i}.png", np.full((6, 5), 20 * k + i, np.uint8))
            mask = np.zeros((6, 5), np.uint8)
            mask[:2, : k + 1] = 255
            save(root / "lesion_masks" / f"{patient}_{i}.png", mask)
    return root


def test_the_flat_layout_is_read_as_folders_are(flat, tmp_path):
    X = load_cohort(flat).data
    for k, patient in enumerate(("P1", "P10", "P_2")):
        assert X.loc[patient, "ct_image"][:, 0, 0].tolist() == [20 * k + i for i in range(1, 13)]
        assert X.loc[patient, "lesion_mask"].sum() == 12 * 2 * (k + 1)
        for i in range(1, 13):
            path = tmp_path / "folders" / patient / f"slice_{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((flat / "images" / f"{patient}_{i}.png").read_bytes())
        assert np.array_equal(read_image(tmp_path / "folders" / patient), X.loc[patient, "ct_image"])
    assert X.loc["P3", "ct_image"] is None and X.loc["P3", "lesion_mask"] is None


def test_sixteen_bits_stay_sixteen_bits_in_the_flat_layout(flat):
    for i in range(1, 13):
        save(flat / "images" / f"P1_{i}.png", np.full((6, 5), 1000 * i, np.uint16))
    image = load_cohort(flat).data.loc["P1", "ct_image"]
    assert image.dtype == np.uint16 and image[:, 0, 0].tolist() == [1000 * i for i in range(1, 13)]


def test_names_of_slices_may_say_slice(flat):
    for part in ("images", "lesion_masks"):
        for path in list((flat / part).glob("P1_*.png")):
            path.rename(path.with_name(path.name.replace("P1_", "P1_slice_")))
    assert load_cohort(flat).data.loc["P1", "ct_image"][:, 0, 0].tolist() == list(range(1, 13))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: save(r / "images" / "P1_2.png", np.zeros((6, 5), np.uint16)), "'P1' have different bit depths"),
        (lambda r: save(r / "images" / "P1_2.png", np.zeros((6, 4), np.uint8)), "'P1' have different sizes"),
        (lambda r: save(r / "images" / "P1_2.png", np.zeros((6, 5, 3), np.uint8)), "'P1' is a colour image"),
        (lambda r: (r / "images" / "P1_2.png").write_bytes(b""), r"'P1_2.png' in .*'P1' is empty \(0 bytes\)"),
        (lambda r: (r / "images" / "P1_13.jpg").write_bytes(b"x"), r"'images' holds \['P1_13.jpg'\] beside its 36 PNG"),
        (lambda r: (r / "images" / "P5").mkdir(), r"'images' holds \['P5'\] beside its 36 PNG"),
        (lambda r: save(r / "images" / "P1_02.png", np.zeros((6, 5), np.uint8)), "same place in the order"),
        (
            lambda r: (r / "images" / "P1_2.png").unlink(),
            r"'P1': images lacks \['P1_2.png'\], which lesion_masks holds",
        ),
        (lambda r: save(r / "lesion_masks" / "P3_1.png", np.zeros((6, 5), np.uint8)), "'P3': images lacks .'P3_1.png'"),
        (lambda r: save(r / "lesion_masks" / "P1_2.png", np.full((6, 5), 9, np.uint8)), r"'P1' holds .*\[0, 9, 255\]"),
    ],
)
def test_slices_of_the_flat_layout_that_are_not_clear_are_refused(flat, spoil, message):
    spoil(flat)
    with pytest.raises(ValueError, match=message):
        load_cohort(flat)


def test_slices_of_nobody_are_said_to_be_left_out(flat):
    save(flat / "images" / "P2_1.png", np.zeros((6, 5), np.uint8))
    save(flat / "images" / "P1_3_1.png", np.zeros((6, 5), np.uint8))
    (flat / "images" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"slices of no patient in clinical.csv: \['P1_3_1.png', 'P2_1.png'\]"):
        X = load_cohort(flat).data
    assert len(X.loc["P1", "ct_image"]) == 12


# -- folders of patients ---------------------------------------------------------------------------------------------


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / "cohort"
    root.mkdir()
    (root / "clinical.csv").write_text("patient_id,subtype\nP1,LUAD\nP2,LUSC\n")
    for patient in ("P1", "P2"):
        save(root / patient / "lesion" / "slice_1.png", np.zeros((6, 5), np.uint8))
    return root


def test_kinds_of_slices_are_matched_without_regard_to_case(cohort):
    (cohort / "P1" / "lesion").rename(cohort / "P1" / "Lesion")
    X = load_cohort(cohort).data
    assert X["lesion_image"].notna().all() and read_image(X.loc["P1", "lesion_image"]).shape == (1, 6, 5)
    (cohort / "P1" / "LESION").mkdir()
    with pytest.raises(ValueError, match="are both 'lesion' of a patient; keep one"):
        load_cohort(cohort)


def test_what_else_a_patients_folder_holds_is_said(cohort):
    save(cohort / "P1" / "pet" / "slice_1.png", np.zeros((6, 5), np.uint8))
    save(cohort / "P1" / "slice_1.png", np.zeros((6, 5), np.uint8))
    (cohort / "P1" / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"folders of patients hold more than .*\['P1/pet', 'P1/slice_1.png'\]"):
        load_cohort(cohort)


def test_slices_in_two_places_or_formats_are_refused(cohort):
    (cohort / "P2" / "lesion" / "slice_2.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"of patient 'P2' holds \['slice_2.jpg'\] beside its 1 PNG"):
        load_cohort(cohort)
    (cohort / "P2" / "lesion" / "slice_2.jpg").unlink()
    save(cohort / "images" / "P2" / "lesion" / "slice_1.png", np.zeros((6, 5), np.uint8))
    with pytest.raises(ValueError, match="both below 'images'.*and beside it"):
        load_cohort(cohort)
