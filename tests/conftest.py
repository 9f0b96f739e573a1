"""Shared fixtures: a small cohort, and the folder of real data where there is one."""

import os
from pathlib import Path

import pytest
import torch

from mmdls.datasets import make_nsclc_cohort

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir():
    """The folder that MMDLS_DATA names."""
    path = os.environ.get("MMDLS_DATA")
    if not path or not Path(path).is_dir():
        pytest.skip("MMDLS_DATA names no folder of real data")
    return Path(path)


@pytest.fixture(scope="session")
def cohort():
    """Sixty simulated patients with images in memory and missing modalities."""
    return make_nsclc_cohort(60, n_slices=(1, 4), image_size=16, missing=0.1, random_state=1)


@pytest.fixture(scope="session")
def cohort_on_disk(tmp_path_factory):
    """The same kind of cohort with paths to folders of PNG slices."""
    folder = tmp_path_factory.mktemp("cohort")
    return make_nsclc_cohort(60, n_slices=(1, 4), image_size=16, missing=0.1, folder=folder, random_state=1)
