"""Files that are not what was saved are refused, also where their checksums were written anew."""

import io
import json
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import skops.io
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

import mmdls
from mmdls import MMDLS, TabularEncoder
from mmdls.persistence._archive import _zipped, checksums
from mmdls.testing import small_study

pytestmark = pytest.mark.filterwarnings("ignore")

RAN = []


class Trap:
    """Says so when a file executes it."""

    def __reduce__(self):
        return RAN.append, ("a pickle",)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a model that has members of every kind, and the same as a file."""
    model, X, y = small_study(MMDLS, "boolean")
    tables = [("block", TabularEncoder(), ["clinical_age"])]
    inner = make_pipeline(TabularEncoder(), DecisionTreeClassifier(max_depth=2, random_state=0))
    inner.fit(X.filter(like="clinical_"), y.iloc[:, 0])
    model = clone(model).fit(X, y)
    model.inner_, model.tables_ = inner, tables
    folder = tmp_path_factory.mktemp("saved")
    mmdls.save(model, folder / "m")
    mmdls.save(model, folder / "m.mmdls")
    return folder, model, X


def members_of(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refused(path):
    RAN.clear()
    with pytest.raises(ValueError) as error:
        mmdls.load(path)
    assert not RAN, "a file was executed"
    return str(error.value)


def test_the_model_itself_loads(saved):
    folder, model, X = saved
    for path in ("m", "m.mmdls"):
        assert np.array_equal(mmdls.load(folder / path).predict(X), model.predict(X))
    assert any(name.startswith("parts/") for name in members_of(folder / "m"))


def test_a_changed_byte_anywhere_in_the_file_is_refused(saved, tmp_path):
    folder, *_ = saved
    data = (folder / "m.mmdls").read_bytes()
    names = [name.encode() for name in members_of(folder / "m")]
    starts = [data.find(name) for name in names] + [data.rfind(name) for name in names]
    places = {*range(40), *range(len(data) - 40, len(data)), *np.linspace(0, len(data) - 1, 60).astype(int).tolist()}
    places |= {start + offset for start in starts for offset in range(-46, 4, 4)}
    for place in sorted(place for place in places if 0 <= place < len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            (tmp_path / "m.mmdls").write_bytes(changed)
            refused(tmp_path / "m.mmdls")
    for cut in (0, 1, 21, 22, len(data) // 2, len(data) - 1):
        (tmp_path / "m.mmdls").write_bytes(data[:cut])
        refused(tmp_path / "m.mmdls")
    for more in (b"\0" + data, data + b"\0", data + data, b"#!/bin/sh\n" + data):
        (tmp_path / "m.mmdls").write_bytes(more)
        refused(tmp_path / "m.mmdls")


def test_a_member_of_a_folder_that_is_changed_lost_or_added_is_named(saved, tmp_path):
    folder, *_ = saved
    for name, content in members_of(folder / "m").items():
        for place in np.linspace(0, len(content) - 1, 5).astype(int):
            shutil.copytree(folder / "m", tmp_path / "m")
            (tmp_path / "m" / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            refused(tmp_path / "m")
            shutil.rmtree(tmp_path / "m")
        shutil.copytree(folder / "m", tmp_path / "m")
        (tmp_path / "m" / name).write_bytes(pickle.dumps(Trap()))
        refused(tmp_path / "m")
        (tmp_path / "m" / name).unlink()
        assert name in refused(tmp_path / "m") or name == "manifest.json"
        shutil.rmtree(tmp_path / "m")


STRANGE = [
    "../evil",
    "/tmp/evil",
    "parts/../../evil",
    "parts/a.skops",
    "model.pkl",
    "MODEL.JSON",
    "parts/000.skops/x",
    "C:\\x",
]


@pytest.mark.parametrize("name", [*STRANGE, "a\0b", "..", "./model.json", "parts\\000.skops"])
def test_a_name_that_leads_elsewhere_is_refused(saved, name, tmp_path):
    members = {**members_of(saved[0] / "m"), name: b"x"}
    members["SHA256SUMS"] = checksums(members)
    (tmp_path / "m.mmdls").write_bytes(_zipped(members))
    assert "is no member of a saved model" in refused(tmp_path / "m.mmdls") or "\0" in name
    assert [file.name for file in tmp_path.iterdir()] == ["m.mmdls"]


def archive(members, path, compression=zipfile.ZIP_STORED, mode=0o100644, twice=None):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            info.compress_type, info.external_attr, info.create_system = compression, mode << 16, 3
            file.writestr(info, members[name])
        if twice:
            file.writestr(twice, members[twice])


@pytest.mark.parametrize(
    "how",
    [
        {"compression": zipfile.ZIP_DEFLATED},
        {"compression": zipfile.ZIP_BZIP2},
        {"mode": 0o120777},
        {"twice": "model.json"},
        {"twice": "SHA256SUMS"},
    ],
    ids=str,
)
def test_compressed_linked_and_doubled_members_are_refused(saved, how, tmp_path):
    with zipfile.ZipFile(saved[0] / "m.mmdls") as file:
        members = {name: file.read(name) for name in file.namelist()}
    archive(members, tmp_path / "same.mmdls")
    assert (tmp_path / "same.mmdls").read_bytes() == (saved[0] / "m.mmdls").read_bytes()
    archive(members, tmp_path / "m.mmdls", **how)
    refused(tmp_path / "m.mmdls")


def test_a_bomb_is_refused_before_it_is_unpacked(saved, tmp_path):
    members = {**members_of(saved[0] / "m"), "arrays.safetensors": bytes(10**8)}
    archive(members, tmp_path / "m.mmdls", zipfile.ZIP_DEFLATED)
    assert (tmp_path / "m.mmdls").stat().st_size < 10**6
    assert "compressed" in refused(tmp_path / "m.mmdls")


@pytest.mark.parametrize("link", ["member", "folder", "pipe"])
def test_links_and_pipes_in_a_folder_are_refused(saved, link, tmp_path):
    shutil.copytree(saved[0] / "m", tmp_path / "m")
    if link == "member":
        shutil.move(tmp_path / "m" / "model.json", tmp_path / "elsewhere")
        (tmp_path / "m" / "model.json").symlink_to(tmp_path / "elsewhere")
    elif link == "folder":
        shutil.move(tmp_path / "m" / "parts", tmp_path / "elsewhere")
        (tmp_path / "m" / "parts").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "m" / "model.json").unlink()
        os.mkfifo(tmp_path / "m" / "model.json")
    assert "links" in refused(tmp_path / "m")


# -- checksums written anew --------------------------------------------------------------------------------------------


def with_checksums(members, path):
    members = {name: content for name, content in members.items() if name != "SHA256SUMS"}
    path.write_bytes(_zipped({**members, "SHA256SUMS": checksums(members)}))
    return path


def cls(name, **more):
    return {"object": 0, "class": {"name": name, **more}}


WRONG_CLASSES = [
    *("os:system", "builtins:eval", "builtins:object", "subprocess:Popen", "functools:partial", "pickle:Unpickler"),
    *(
        "mmdls.registry:Registry",
        "mmdls.persistence._graph:Reader",
        "mmdls.persistence._save:os",
        "mmdls._files:whole_file",
    ),
    *("sklearn.utils._bunch:Bunch.__init__", "sklearn.base:os", "sklearn.base:BaseEstimator.fit", "torch:load"),
    *(
        "torch.hub:load",
        "torch.nn.modules.module:torch",
        "torch.utils.data.dataset:Dataset",
        "numpy:load",
        "joblib:Memory",
    ),
    *(
        "mmdls.estimators.multimodal._mmdls:np.random",
        "sklearn.datasets._base:fetch_file",
        "optuna.storages._in_memory:InMemoryStorage",
    ),
    *(
        "torch.jit._script:RecursiveScriptModule",
        "__main__:x",
        "antigravity:x",
        "mmdls..os:x",
        "mmdls.cli:main",
        "",
        3,
        None,
    ),
]


@pytest.mark.parametrize("name", WRONG_CLASSES, ids=str)
def test_a_class_that_may_not_stand_in_a_file_is_refused(saved, name, tmp_path):
    members = members_of(saved[0] / "m")
    graph = json.loads(members["model.json"])
    graph["objects"][0]["class"] = {"name": name}
    members["model.json"] = json.dumps(graph).encode()
    refused(with_checksums(members, tmp_path / "m.mmdls"))
    graph["objects"][0]["class"]["name"] = "mmdls.estimators:MMDLS"
    graph["objects"][0]["attributes"].append(["extra_", {"class": {"name": name}}])
    members["model.json"] = json.dumps(graph).encode()
    refused(with_checksums(members, tmp_path / "m.mmdls"))


WRONG_NODES = [
    *(
        {"function": "os:system"},
        {"function": "builtins:eval"},
        {"function": "numpy:load"},
        {"function": "numpy:fromfile"},
    ),
    *(
        {"function": "sklearn.metrics:os"},
        {"function": "torch.nn.functional:torch"},
        {"function": 3},
        {"pickle": "gASV"},
    ),
    *(
        {"object": 10**6},
        {"object": -1},
        {"object": "0"},
        {"object": True},
        {"part": "999"},
        {"part": "../x"},
        {},
        {"a": 1, "b": 2},
    ),
    *(
        {"array": {"dtype": "|O", "shape": [1], "numbers": "a0000"}},
        {"array": {"dtype": "<f8", "shape": [9], "numbers": "none"}},
    ),
    *(
        {"array": {"dtype": "<f8", "shape": [-1], "numbers": "a0000"}},
        {"array": {"dtype": "|V8", "shape": [1], "cells": [1]}},
    ),
    *(
        {"array": {"dtype": "<U1000000000", "shape": [1], "cells": ["x"]}},
        {"array": {"dtype": "|O", "shape": [3], "cells": [1]}},
    ),
    *(
        {"tensor": {"numbers": "t0000", "shape": [10**9, 10**9]}},
        {"tensor": {"numbers": "t0000", "shape": [2], "stride": [10**12]}},
    ),
    *(
        {"tensor": {"numbers": "t0000", "shape": [10**6], "stride": [0]}},
        {"torch_dtype": "load"},
        {"class": {"name": "os:system"}},
    ),
    *(
        {"class": {"name": "x:Y", "registered": ["encoders"]}},
        {"class": {"name": "x:Y", "registered": ["os", "system"]}},
    ),
    *(
        {"bytes": "?"},
        {"float": "1e999999"},
        {"dtype": "O8,i4"},
        {"generator": {"dict": [["bit_generator", "os"]]}},
        {"net": [1, []]},
    ),
    *(
        {"frame": [["a"], {"index": {"range": [0, 10**12, 1], "name": None}}, [1], {"dict": []}]},
        {"distribution": {"name": "eval"}},
    ),
    *(
        {"spline": [1]},
        {"spline": [[0.0, 1.0], [1.0], 3, True, 0]},
        {"scipy_distribution": ["ttest_ind", [1, 2], {"dict": []}]},
        {"scipy_distribution": ["norm", ["x"], {"dict": []}]},
        {"scipy_distribution": ["norm", [], {"dict": [["loc", {"tuple": [1]}]]}]},
    ),
]


@pytest.mark.parametrize("node", WRONG_NODES, ids=lambda node: str(node)[:60])
def test_a_value_that_no_writer_writes_is_refused(saved, node, tmp_path):
    members = members_of(saved[0] / "m")
    graph = json.loads(members["model.json"])
    graph["objects"][0]["attributes"].append(["extra_", node])
    members["model.json"] = json.dumps(graph).encode()
    refused(with_checksums(members, tmp_path / "m.mmdls"))


def test_a_file_cannot_choose_a_place_of_the_machine(saved, tmp_path):
    members = members_of(saved[0] / "m")
    graph = json.loads(members["model.json"])
    for each in graph["objects"]:
        if each["class"]["name"].endswith(":Pipeline"):
            each["attributes"] = [[k, "/tmp/evil" if k == "memory" else v] for k, v in each["attributes"]]
    members["model.json"] = json.dumps(graph).encode()
    assert "places of a machine" in refused(with_checksums(members, tmp_path / "m.mmdls"))


def test_members_of_another_kind_are_refused(saved, tmp_path):
    good = members_of(saved[0] / "m")
    trap = pickle.dumps(Trap())
    deep = b"[" * 10**5 + b"]" * 10**5
    zipped = io.BytesIO()
    torch.save({"weight": Trap()}, zipped)
    broken = [
        trap,
        b"",
        b"null",
        b"[]",
        b"{}",
        deep,
        zipped.getvalue(),
        b"\xff" * 64,
        b'{"model": NaN}',
        bytes(8) + b"{}",
    ]
    for name in good:
        if name in ("SHA256SUMS", "README.md"):
            continue
        for content in broken:
            refused(with_checksums({**good, name: content}, tmp_path / "m.mmdls"))


def test_tensors_of_another_length_are_refused(saved, tmp_path):
    good = members_of(saved[0] / "m")
    tensors = safetensors.torch.load(good["tensors.safetensors"])
    tensors = {name: torch.zeros(3, 5) for name in tensors}
    refused(with_checksums({**good, "tensors.safetensors": safetensors.torch.save(tensors)}, tmp_path / "m.mmdls"))


def part_of(value):
    return skops.io.dumps(value)


def changed_part(data, change):
    """A part of which members {name: bytes} are changed."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in change(members).items():
            file.writestr(name, content)
    return buffer.getvalue()


def long_array(members):
    name = next(name for name in members if name.endswith(".npy"))
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    return {**members, name: buffer.getvalue()}


def pickled_array(members):
    name = next(name for name in members if name.endswith(".npy"))
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    return {**members, name: buffer.getvalue()}


def renamed_class(members):
    text = (
        members["schema.json"]
        .replace(b'"LogisticRegression"', b'"system"')
        .replace(b"sklearn.linear_model._logistic", b"os")
    )
    return {**members, "schema.json": text}


def test_parts_of_scikit_learn_are_checked(saved, tmp_path):
    good = members_of(saved[0] / "m")
    name = next(name for name in good if name.startswith("parts/"))
    model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    parts = [changed_part(part_of(model), change) for change in (long_array, pickled_array, renamed_class)]
    for part in [*parts, part_of({"a": 1}), part_of([Path]), pickle.dumps(Trap())]:
        refused(with_checksums({**good, name: part}, tmp_path / "m.mmdls"))


@pytest.mark.parametrize("field", ["left_child", "right_child", "feature"])
@pytest.mark.parametrize("value", [0, 10**6, -7])
def test_a_tree_that_reads_outside_of_itself_is_refused(saved, field, value, tmp_path):
    model = DecisionTreeClassifier(max_depth=2, random_state=0)
    X = np.random.default_rng(0).normal(size=(40, 3))
    model.fit(X, X[:, 0] > 0)
    if field == "feature" and value == 0:
        value = 3
    state = model.tree_.__getstate__()
    state["nodes"][field][0] = value
    model.tree_.__setstate__(state)
    mmdls.save(model, tmp_path / "m.mmdls")
    assert "decision tree" in refused(tmp_path / "m.mmdls")


def test_random_changes_of_the_graph_never_execute_anything(saved, tmp_path):
    """Values and classes swapped at random: refused, or loaded without a word from the trap."""
    good = members_of(saved[0] / "m")
    rng = random.Random(0)
    for _ in range(30):
        graph = json.loads(good["model.json"])
        one, other = rng.sample(graph["objects"], 2)
        one["class"], other["class"] = other["class"], one["class"]
        path = with_checksums({**good, "model.json": json.dumps(graph).encode()}, tmp_path / "m.mmdls")
        try:
            mmdls.load(path)
        except ValueError:
            continue
    assert not RAN
