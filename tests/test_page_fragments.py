"""Blocks of pages that take a table for granted run on a small one; commands on pages are accepted."""

import argparse
import re
import runpy
import shlex
import sys
import tomllib
import warnings

import matplotlib
import numpy as np
import pandas as pd
import pytest

from mmdls import ClinicalCox, registry
from mmdls.cli import main
from mmdls.datasets import make_nsclc_cohort
from tests.pages import ROOT, blocks_of, page

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALLER = {
    "cv=5, n_jobs=2": "cv=2",
    "cv=5": "cv=2",
    "CohortKFold(5": "CohortKFold(2",
    "n_trials=40": "n_trials=2",
    "make_nsclc_cohort(200": "make_nsclc_cohort(30, n_slices=2, image_size=16",
    "n_slices=2, image_size=16, n_slices=1, image_size=16": "n_slices=1, image_size=16",
    "n_jobs=4": "n_jobs=1",
    "MMDLS(random_state=0)": "MMDLS(n_members=1, trainer=Trainer(max_epochs=1))",
    "max_epochs=5": "max_epochs=1",
    "MMDLS(image_encoder=encoder, trainer=Trainer(": "MMDLS(image_encoder=encoder, trainer=Trainer(max_epochs=1, ",
    "LungLesionSegmentor(random_state=0)": "LungLesionSegmentor(image_size=16, max_epochs=1)",
}


def _tables(n=60):
    X, y = make_nsclc_cohort(n, n_slices=1, image_size=8, return_X_y=True, random_state=0)
    return X.filter(regex="^(clinical|pet|radiomics)_").iloc[:, :12], y[["os_time", "os_event"]]


def benchmark():
    X, y = _tables()
    return {"X": X, "y": y, "my_estimator": ClinicalCox()}


def parts():
    return {"network": lambda images: images.mean((2, 3))}


def radiomics():
    rng = np.random.default_rng(0)
    scans = [(rng.normal(0, 50, (8, 12, 12)), (1.0, 1.0, 1.0)) for _ in range(2)]
    masks = [np.ones((8, 12, 12), dtype=bool)] * 2
    return {"X": pd.DataFrame({"ct_image": scans, "ct_mask": masks, "pet_image": scans, "pet_mask": masks})}


def scaling():
    return {}


def segmentation():
    from mmdls import Trainer

    X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, masks=True, return_X_y=True, random_state=0)
    X = X[["lung_image", "lung_mask", "lesion_mask"]].rename(columns={"lung_image": "ct_image"})
    return {"X": X, "X_new": X, "y": y[["os_time", "os_event"]], "Trainer": Trainer}


def statistics():
    X, y = _tables()
    rng = np.random.default_rng(0)
    return {"X": X, "y": y.assign(death_time=y["os_time"], death_cause=rng.integers(0, 3, len(y)))}


FRAGMENTS = [benchmark, parts, radiomics, scaling, segmentation, statistics]


@pytest.mark.slow
@pytest.mark.parametrize("taken_for_granted", FRAGMENTS, ids=lambda page: page.__name__)
def test_the_blocks_of_a_page_run(taken_for_granted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tune.py", "study.log"])
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": 29511}.items():
        monkeypatch.setenv(name, str(value))
    matplotlib.use("Agg")
    name = taken_for_granted.__name__
    names = {"__name__": "__main__", **taken_for_granted()}
    for block in blocks_of(f"docs/{name}.md"):
        if "distributed import" in block and not _is_installed("distributed"):
            continue  # the extra scale; ./dev lowest has it
        for shown, smaller in SMALLER.items():
            block = block.replace(shown, smaller)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(block, f"{name}.md", "exec"), names)


def _is_installed(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


class _ParsedError(Exception):
    """The command was accepted."""


def _commands(start):
    """The commands of all pages that begin in a way, in blocks and within sentences, continued lines as one."""
    text = "\n".join(page(path) for path in PAGES).replace("\\\n", " ")
    found = re.findall(rf"(?:^|`)(?:[A-Z_]+=\S+ +|srun +)*({start}[^`\n]*)", text, re.MULTILINE)
    return sorted({" ".join(each.split("#")[0].split()) for each in found})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # a package has imported the module already
@pytest.mark.parametrize("command", _commands("python -m benchmarks"))
def test_options_of_benchmarks_are_accepted(command, monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self, args=None, namespace=None):
        parse(self, args, namespace)
        raise _ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    command = command.replace("$((SLURM_ARRAY_TASK_ID + 1))/$SLURM_ARRAY_TASK_COUNT", "1/2")
    _, _, module, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(_ParsedError):
        runpy.run_module(module, run_name="__main__")


def test_subcommands_that_pages_name_exist():
    dev = (ROOT / "dev").read_text(encoding="utf-8")
    named = {command.split()[1] for command in _commands("./dev ")}
    assert {"demo", "test", "docs", "check", "lowest"} <= named and all(f"\n{name})\n" in dev for name in named)
    named = {command.split()[1].rstrip(".,") for command in _commands("mmdls [a-z]")}
    assert "check-plugin" in named and named <= set(main.commands)


def test_entry_points_on_pages_are_of_registries():
    blocks = re.findall(r"```toml\n(.*?)```", "\n".join(map(page, PAGES)), re.DOTALL)
    groups = [group for block in blocks for group in tomllib.loads(block)["project"]["entry-points"]]
    assert groups and all(hasattr(registry, group.removeprefix("mmdls.")) for group in groups)
