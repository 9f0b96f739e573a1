"""Images: what can be read, what is refused with which words, and the store of all slices."""

import multiprocessing
import os
import pickle
import signal
import tracemalloc
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import mmdls.images._store as store_module
from mmdls.estimators import LungLesionSegmentor, SliceEncoder, VectorBagEncoder
from mmdls.estimators.encoders._slices import SliceData
from mmdls.images import SliceStore, is_missing, read_image, read_mask
from tests.full_disk import with_a_full_disk


def write_slices(folder, stack, name="slice_{}.png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(stack):
        Image.fromarray(image).save(folder / name.format(i))
    return folder


@pytest.fixture
def stacks():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (count, 12, 10), dtype=np.uint8) for count in (3, 1, 11)]


def test_a_folder_of_slices_is_read_in_natural_order(tmp_path, stacks):
    folder = write_slices(tmp_path / "p", stacks[2])
    assert np.array_equal(read_image(folder), stacks[2])
    assert np.array_equal(read_image(str(folder)), stacks[2])


@pytest.mark.parametrize(
    ("names", "is_open"),
    [
        (["z-5", "z0", "z5"], True),
        (["-3", "-2", "-1"], True),
        (["-5", "+3", "+5"], True),
        (["z-5", "z+3", "z+5"], True),
        (["+1", "+2", "+3"], False),
        (["z1.75", "z2.25", "z2.5"], True),
        (["z-110.5", "z-107.5", "z-104.5"], False),  # all of them have a sign, or none
        (["a.9", "a.10", "a.11"], False),
        (["3.9", "3.10", "3.11"], False),  # series and slice
        (["1.2.840.9", "1.2.840.10", "1.2.841.9"], False),
        (["z9.50", "z10.00", "z10.50"], False),
    ],
)
def test_signs_and_decimals_leave_no_order_open(tmp_path, stacks, names, is_open):
    for name, picture in zip(names, stacks[0], strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    if is_open:
        with pytest.raises(ValueError, match="have signs or decimals, by which their order would be another"):
            read_image(tmp_path)
    else:
        assert len(read_image(tmp_path)) == 3


def test_npy_and_arrays_are_read(tmp_path, stacks):
    np.save(tmp_path / "a.npy", stacks[0])
    assert np.array_equal(read_image(tmp_path / "a.npy"), stacks[0])
    assert read_image(stacks[0][0]).shape == (1, 12, 10)


def test_sixteen_bit_slices_keep_their_values(tmp_path):
    image = np.arange(120, dtype=np.uint16).reshape(12, 10) * 500
    assert np.array_equal(read_image(write_slices(tmp_path / "p", [image]))[0], image)


@pytest.mark.parametrize("cell", [None, np.nan, pd.NA, pd.NaT, float("nan")])
def test_missing_cells(cell):
    assert is_missing(cell)
    assert not is_missing("path") and not is_missing(np.zeros((1, 2, 2)))


def test_what_cannot_be_read_is_refused_with_patient_and_cure(tmp_path, stacks):
    with pytest.raises(FileNotFoundError, match=r"no image at .*gone' of patient 'P1'; correct the path, or use None"):
        read_image(tmp_path / "gone", "P1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty' of patient 'P1' has no PNG slice; it holds nothing"):
        read_image(tmp_path / "empty", "P1")
    broken = write_slices(tmp_path / "broken", stacks[0])
    data = (broken / "slice_1.png").read_bytes()
    (broken / "slice_1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"'slice_1.png' in .*broken' of patient 'P1' is damaged"):
        read_image(broken, "P1")
    (broken / "slice_1.png").write_text("no image")
    with pytest.raises(ValueError, match=r"'slice_1.png' in .* is no image; remove it or replace it"):
        read_image(broken, "P1")
    (tmp_path / "scan.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"scan.txt'.* is no image that can be read: expected a folder .* got '.txt'"):
        read_image(tmp_path / "scan.txt")
    colour = write_slices(tmp_path / "colour", [np.zeros((4, 4, 3), np.uint8)])
    with pytest.raises(ValueError, match=r"is a colour image \(mode RGB\); slices must be grey"):
        read_image(colour)
    mixed = write_slices(tmp_path / "mixed", [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)])
    with pytest.raises(ValueError, match=r"slices in .* have different sizes \[\(4, 4\), \(4, 5\)\]"):
        read_image(mixed)
    with pytest.raises(ValueError, match="1 pixels that are NaN or infinite"):
        read_image(np.array([[0.1, np.nan]]))
    with pytest.raises(ValueError, match=r"must have shape \(S, H, W\) with at least one slice; got \(2, 3, 4, 5\)"):
        read_image(np.zeros((2, 3, 4, 5)))
    with pytest.raises(TypeError, match="an image of patient 'P1' is a path, an array .*; got dict"):
        read_image({}, "P1")
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="is no array of numbers"):
        read_image(tmp_path / "pickled.npy")


def test_masks_must_fit_and_hold_two_values():
    mask = np.zeros((2, 4, 4), np.uint8)
    mask[:, 1:3, 1:3] = 255
    assert read_mask(mask).sum() == 8
    with pytest.raises(ValueError, match=r"mask of patient 'P' has shape \(2, 4, 4\) and its image \(2, 5, 4\)"):
        read_mask(mask, "P", (2, 5, 4))
    with pytest.raises(ValueError, match=r"holds the values \[0, 1, 255\]; expected 0 outside and one other"):
        read_mask(np.where(np.arange(4) == 0, 1, mask))
    with pytest.raises(ValueError, match="mask of patient 'P' is empty"):
        read_mask(np.zeros((1, 4, 4)), "P")


def test_eight_bit_slices_are_kept_exactly_and_packed(stacks):
    store = SliceStore.build([stacks[0], None, stacks[1], stacks[2]])
    assert store.data.dtype == np.uint8 and store.data.shape == (15, 12, 10) and len(store) == 4
    assert store.present.tolist() == [True, False, True, True]
    index, counts = SliceData(store).index_of(np.array([3, 1, 0]))
    assert counts.tolist() == [11, 0, 3]
    expected = torch.as_tensor(np.concatenate([stacks[2], stacks[0]])[:, None] / np.float32(255))
    assert torch.equal(store.gather(index), expected)
    assert torch.equal(store.gather(index[:5]), expected[:5])
    pixels = np.concatenate(stacks) / 255
    assert store.mean == pytest.approx(pixels.mean()) and store.std == pytest.approx(pixels.std())


def test_a_cohort_without_images_has_an_empty_store():
    store = SliceStore.build([None, np.nan], image_size=8)
    assert store.data.shape == (0, 8, 8) and not store.present.any()
    assert SliceData(store).index_of(np.array([0, 1]))[0].shape == (0,)


def test_greys_are_never_guessed():
    hounsfield = np.array([[[-1000, 400]]], dtype=np.int16)
    with pytest.raises(ValueError, match=r"patient 'P' holds int16 from -1000 to 400.*Pass intensity_range"):
        SliceStore.build([hounsfield], patients=["P"])
    store = SliceStore.build([hounsfield], intensity_range=(-1000, 400))
    assert store.gather(np.array([0])).flatten().tolist() == [0, 1]
    clipped = SliceStore.build([hounsfield], intensity_range=(-500, 0))
    assert clipped.gather(np.array([0])).flatten().tolist() == [0, 1]


def test_sizes_must_agree_or_be_chosen(stacks):
    other = np.full((2, 30, 20), 100, np.uint8)
    with pytest.raises(ValueError, match="images have different sizes.*pass image_size"):
        SliceStore.build([stacks[0], other])
    store = SliceStore.build([stacks[0], other], image_size=(16, 8))
    assert store.image_size == (16, 8)
    assert (store.data[3:] == 100).all()


@pytest.mark.parametrize(("own", "kept"), [((48, 30), (16, 10)), ((30, 48), (10, 16)), ((16, 9), (16, 9))])
def test_large_slices_are_reduced_and_small_ones_stay(own, kept):
    image = np.random.default_rng(0).integers(0, 255, (3, *own), np.uint8)
    store = SliceStore.build([image, None], max_image_size=16)
    assert store.image_size == kept
    assert np.array_equal(store.data, SliceStore.build([image, None], image_size=kept).data)
    assert SliceStore.build([image], image_size=(20, 40), max_image_size=16).image_size == (20, 40)


def test_large_slices_of_several_sizes_become_alike():
    images = [np.zeros((1, side, side), np.uint8) for side in (32, 40)]
    assert SliceStore.build(images, max_image_size=16).image_size == (16, 16)


def test_the_encoder_reads_up_to_sixteen_slices_of_up_to_128_pixels_unless_told():
    stack = np.zeros((40, 256, 256), np.uint8)
    stack += np.arange(40, dtype=np.uint8)[:, None, None]
    table = pd.DataFrame({"ct_image": [stack, stack[:5, :32, :32].repeat(8, axis=1).repeat(8, axis=2)]})
    data = SliceEncoder().prepare(table)
    assert data.counts.tolist() == [16, 5] and data.item_shape == (1, 128, 128)
    assert data.store.data[:16, 0, 0].tolist() == np.linspace(0, 39, 16).round().tolist()
    whole = SliceEncoder(max_slices=None, max_image_size=None).prepare(table)
    assert whole.counts.tolist() == [40, 5] and whole.item_shape == (1, 256, 256)


def test_long_stacks_are_thinned_evenly(stacks):
    store = SliceStore.build(stacks, max_slices=3)
    assert store.counts.tolist() == [3, 1, 3]
    assert np.array_equal(store.data[4:], stacks[2][[0, 5, 10]])


def test_a_mask_cuts_its_region_out():
    image = np.full((1, 20, 30), 50, np.uint8)
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:15, 8:14] = True
    store = SliceStore.build([image, image], masks=[mask, mask])
    assert store.image_size == (11, 11)
    assert (store.data[0] == 50).sum() == 60


def test_memory_decodes_nothing_twice(tmp_path, stacks, monkeypatch):
    cells = [write_slices(tmp_path / str(i), stack) for i, stack in enumerate(stacks)]
    reads = []
    reader = store_module.read_image
    monkeypatch.setattr(store_module, "read_image", lambda *a: reads.append(a) or reader(*a))
    first = SliceStore.build(cells, memory=tmp_path / "memory")
    assert len(reads) == 3 and isinstance(first.data, np.memmap)
    for memory in (str(tmp_path / "memory"), joblib.Memory(tmp_path / "memory", verbose=0)):
        assert np.array_equal(SliceStore.build(cells, memory=memory).data, first.data)
    assert len(reads) == 3
    reads.clear()
    SliceStore.build(cells, memory=tmp_path / "memory", max_slices=2)
    assert len(reads) == 3, "other settings are another store"
    Image.fromarray(255 - stacks[0][0]).save(cells[0] / "slice_0.png")
    changed = SliceStore.build(cells, memory=tmp_path / "memory")
    assert not np.array_equal(changed.data, first.data), "other contents are another store"
    assert len(pickle.dumps(first)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(first)).data, first.data)


def test_a_killed_build_is_not_taken_for_a_whole_one(tmp_path, stacks, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        SliceStore.build(stacks, memory=tmp_path)
    assert not list(tmp_path.rglob("store.json"))
    monkeypatch.undo()
    assert np.array_equal(SliceStore.build(stacks, memory=tmp_path).data, np.concatenate(stacks))


def test_two_processes_may_build_at_once(tmp_path, stacks):
    stores = joblib.Parallel(n_jobs=2)(joblib.delayed(SliceStore.build)(stacks, memory=tmp_path) for _ in range(4))
    assert all(np.array_equal(store.data, np.concatenate(stacks)) for store in stores)
    assert len(list((tmp_path / "mmdls-slices").iterdir())) == 1


def test_threads_and_one_worker_agree(tmp_path, stacks, capsys):
    cells = [write_slices(tmp_path / str(i), stack) for i, stack in enumerate(stacks)]
    one, two = SliceStore.build(cells), SliceStore.build(cells, n_jobs=2, verbose=1)
    assert np.array_equal(one.data, two.data)
    assert "reading images" in capsys.readouterr().err


def _build_together(stacks, memory, barrier, found):
    """Both processes have written their store before either of them moves it into place."""
    replace = store_module.os.replace

    def wait_and_replace(*paths):
        barrier.wait(timeout=600)
        replace(*paths)

    store_module.os.replace = wait_and_replace
    found.put(np.asarray(SliceStore.build(stacks, memory=memory).data))


def test_two_processes_may_finish_the_same_store_at_once(tmp_path, stacks):
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=_build_together, args=(stacks, tmp_path, barrier, found), daemon=True) for _ in range(2)
    ]
    for process in processes:
        process.start()
    stores = [found.get(timeout=600) for _ in processes]
    for process in processes:
        process.join(timeout=600)
        assert process.exitcode == 0
    assert all(np.array_equal(data, np.concatenate(stacks)) for data in stores)
    assert [path.name[0] for path in (tmp_path / "mmdls-slices").iterdir()] != ["."]
    assert len(list((tmp_path / "mmdls-slices").iterdir())) == 1


def _die_half_way(stacks, memory):
    load, read = np.load, []

    def half(file, **options):
        read.append(1)
        if len(read) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(file, **options)

    np.load = half
    SliceStore.build(stacks, memory=memory)


def test_a_process_killed_while_it_writes_leaves_no_store(tmp_path, stacks):
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_half_way, args=(stacks, tmp_path))
    process.start()
    process.join(timeout=600)
    assert process.exitcode == -signal.SIGKILL
    assert list(tmp_path.rglob("data.npy")) and not list(tmp_path.rglob("store.json"))
    store = SliceStore.build(stacks, memory=tmp_path)
    assert np.array_equal(store.data, np.concatenate(stacks))
    assert [path.name[0] for path in (tmp_path / "mmdls-slices").iterdir()] != ["."]  # what was left is removed
    assert len(list((tmp_path / "mmdls-slices").iterdir())) == 1


@pytest.mark.parametrize("damage", ["flip", "truncate", "zeros", "empty", "missing", "other"])
@pytest.mark.parametrize("name", ["data.npy", "store.json", "sums.npy"])
def test_a_damaged_store_is_said_and_read_anew(tmp_path, stacks, name, damage):
    SliceStore.build(stacks, memory=tmp_path).cached("sums", lambda: np.arange(15.0))
    (path,) = tmp_path.rglob(name)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    changed = {"truncate": content[:-40], "zeros": bytes(len(content)), "empty": b"", "other": content + b"\n"}
    path.unlink() if damage == "missing" else path.write_bytes(changed.get(damage, content))
    expected = f"{'array' if name == 'sums.npy' else 'slices in'} .*{tmp_path.name}.* damaged"
    silent = name == "sums.npy" and damage == "missing"
    with warnings.catch_warnings() if silent else pytest.warns(UserWarning, match=expected):
        store = SliceStore.build(stacks, memory=tmp_path)
        assert np.array_equal(store.cached("sums", lambda: np.arange(15.0)), np.arange(15.0))
    assert np.array_equal(store.data, np.concatenate(stacks)) and store.counts.tolist() == [len(s) for s in stacks]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = SliceStore.build(stacks, memory=tmp_path)
        assert np.array_equal(again.cached("sums", list), np.arange(15.0)) and again.mean == store.mean
    assert len(list((tmp_path / "mmdls-slices").iterdir())) == 1


def test_a_full_disk_leaves_no_store_and_what_was_there(tmp_path, stacks):
    assert "OSError" in with_a_full_disk(lambda: len(SliceStore.build(stacks, memory=tmp_path)))
    assert not list((tmp_path / "mmdls-slices").iterdir())
    store = SliceStore.build(stacks, memory=tmp_path)

    def keep():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = store.cached("sums", lambda: np.arange(150.0))
        return value.sum(), [str(each.message) for each in said]

    total, said = with_a_full_disk(keep)
    assert total == np.arange(150.0).sum() and "sums.npy' is not kept: " in said[0]
    assert sorted(path.name for path in store._folder.iterdir()) == ["data.npy", "store.json"]
    assert np.array_equal(SliceStore.build(stacks, memory=tmp_path).data, np.concatenate(stacks))


class _Made:
    """Makes the slices of a patient when they are asked for: greys, floats, or greys of every second patient."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, image, mask, patient):
        slices = np.random.default_rng(patient).integers(0, 255, (16, 64, 64)).astype(np.uint8)
        grey = self.kind == "greys" or (self.kind == "both" and patient % 2)
        return slices if grey else slices / np.float32(254), None, None


@pytest.mark.parametrize("kind", ["greys", "floats", "both"])
def test_a_kept_store_is_that_in_memory_and_takes_the_memory_of_single_patients(tmp_path, kind):
    def build(memory):
        tracemalloc.start()
        store = SliceStore.build([np.zeros(1)] * 60 + [None], read=_Made(kind), memory=memory)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return store, peak

    (kept, kept_peak), (held, held_peak) = build(tmp_path), build(None)
    assert np.array_equal(kept.data, held.data) and kept.data.dtype == held.data.dtype
    assert (kept.mean, kept.std, kept.counts.tolist()) == (held.mean, held.std, [16] * 60 + [0])
    assert kept_peak < held_peak / 3
    assert sorted(path.name for path in kept._folder.iterdir()) == ["data.npy", "store.json"]


def test_a_place_that_cannot_hold_slices_is_named(tmp_path, stacks):
    (tmp_path / "mmdls-slices").write_text("a file")
    with pytest.raises(OSError, match=r"slices cannot be kept here. Give memory= a folder .*mmdls-slices"):
        SliceStore.build(stacks, memory=tmp_path)


def test_a_store_remembers_what_was_computed_from_it(tmp_path, stacks):
    made = []

    def make():
        made.append(1)
        return np.arange(15.0)

    for memory, again in ((tmp_path, 0), (None, 1)):
        made.clear()
        store = SliceStore.build(stacks, memory=memory)
        for _ in range(2):
            assert np.array_equal(store.cached("sums", make), np.arange(15.0))
        assert len(made) == 1
        assert np.array_equal(SliceStore.build(stacks, memory=memory).cached("sums", make), np.arange(15.0))
        assert len(made) == 1 + again
    store.cached("others", make)
    assert len(made) == 3
    assert not list(tmp_path.rglob(".unfinished*"))


def test_all_paths_that_lead_nowhere_are_counted_with_their_patients(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 4, 4), np.uint8))
    there = str(tmp_path / "a.npy")
    patients = [f"P{i}" for i in range(7)]
    paths = [there if i in (0, 3) else f"gone{i}.npy" for i in range(7)]
    said = (
        "at 5 of 7 paths: 'gone1.npy' of patient 'P1', 'gone2.npy' of patient 'P2', 'gone4.npy' of patient 'P4' and 2 "
    )
    for images, masks, what in ((paths, None, "image"), ([there] * 7, paths, "mask")):
        with pytest.raises(FileNotFoundError, match=f"no {what} {said}more; correct the paths, or use None"):
            SliceStore.build(images, masks=masks, patients=patients)
    # A mask without an image is never read.
    with pytest.raises(FileNotFoundError, match="no image at 'gone1.npy' of patient 'P1'; "):
        SliceStore.build([there, "gone1.npy", None], masks=[None, None, "gone2.npy"], patients=patients[:3])
    for encoder, column in ((VectorBagEncoder(), "ct_vectors"), (LungLesionSegmentor(), "ct_image")):
        X = pd.DataFrame({column: paths, "lung_mask": there}, index=patients)
        with pytest.raises(FileNotFoundError, match=said):
            encoder.prepare(X[[column]]) if column == "ct_vectors" else encoder.fit(X)
