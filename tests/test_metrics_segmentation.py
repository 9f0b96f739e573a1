"""Overlap and distance of masks against sums over all pairs of surface pixels, and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from mmdls.metrics import (
    UndefinedMetricWarning,
    dice_score,
    hausdorff_distance_95,
    iou_score,
    surface_dice,
)


def blobs(seed, shape=(9, 8, 7)):
    rng = np.random.default_rng(seed)
    masks = rng.random((2, *shape)) < rng.uniform(0.05, 0.7, size=(2, 1, 1, 1))
    masks[:, 4, 4, 3] = True
    return masks


def surface(mask):
    """Pixels of the mask with a neighbour outside of it, one by one."""
    padded = np.pad(mask, 1)
    found = []
    for point in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (-1, 1):
                neighbour = point + 1
                neighbour[axis] += step
                if not padded[tuple(neighbour)]:
                    found.append(tuple(point))
    return np.array(sorted(set(found)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 5.0])] * 3))
def test_distances_equal_those_of_all_pairs_of_surface_pixels(seed, spacing):
    mask, predicted = blobs(seed)
    distances = cdist(surface(mask) * spacing, surface(predicted) * spacing)
    ways = distances.min(axis=1), distances.min(axis=0)
    expected = max(np.percentile(way, 95) for way in ways)
    assert hausdorff_distance_95(mask, predicted, spacing) == pytest.approx(expected)
    assert hausdorff_distance_95(predicted, mask, spacing) == pytest.approx(expected)
    share = np.mean(np.concatenate(ways) <= 1.0)
    assert surface_dice(mask, predicted, 1.0, spacing) == pytest.approx(share)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_overlaps_are_those_of_sets(seed):
    mask, predicted = blobs(seed)
    one, two = ({tuple(p) for p in np.argwhere(m)} for m in (mask, predicted))
    assert dice_score(mask, predicted) == pytest.approx(2 * len(one & two) / (len(one) + len(two)))
    assert iou_score(mask, predicted) == pytest.approx(len(one & two) / len(one | two))


def test_a_mask_is_itself_and_a_shifted_one_is_as_far_as_the_shift():
    mask = np.zeros((30, 30), dtype=bool)
    mask[5:15, 5:15] = True
    assert dice_score(mask, mask) == iou_score(mask, mask) == surface_dice(mask, mask, 0.0) == 1.0
    assert hausdorff_distance_95(mask, mask) == 0.0
    assert hausdorff_distance_95(mask, np.roll(mask, 12, axis=1), (1.0, 0.5)) == pytest.approx(6.0)


def test_one_slice_is_the_same_as_an_image():
    masks = blobs(3)[:, 4]
    stacked = masks[:, None]
    assert hausdorff_distance_95(*stacked, (5.0, 0.7, 0.7)) == hausdorff_distance_95(*masks, 0.7)
    assert surface_dice(*stacked, 1.0) == surface_dice(*masks, 1.0)


def test_nothing_is_invented_for_empty_masks():
    empty, full = np.zeros((4, 4), dtype=bool), np.ones((4, 4), dtype=bool)
    for score in (dice_score, iou_score, hausdorff_distance_95, lambda a, b: surface_dice(a, b, 1.0)):
        with pytest.warns(UndefinedMetricWarning, match="not defined"):
            assert np.isnan(score(empty, empty))
    assert dice_score(empty, full) == iou_score(empty, full) == surface_dice(empty, full, 1.0) == 0.0
    with pytest.warns(UndefinedMetricWarning, match="a mask is empty"):
        assert np.isnan(hausdorff_distance_95(empty, full))


def test_probabilities_and_other_shapes_are_refused():
    with pytest.raises(ValueError, match="Apply a threshold"):
        dice_score(np.full((2, 2), 0.3), np.ones((2, 2)))
    with pytest.raises(ValueError, match="one shape"):
        iou_score(np.ones((2, 2)), np.ones((3, 2)))
