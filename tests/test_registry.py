"""Named parts: what a registry promises, shown with third-party packages that are really installed."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mmdls import registry
from mmdls.registry import Registry

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "plugin"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder into which the example plug-in was built and installed."""
    folder = tmp_path_factory.mktemp("example")
    source = shutil.copytree(EXAMPLE, folder / "source")
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    install = [sys.executable, "-m", "pip", "install", *offline, "--target", folder / "site", source]
    subprocess.run(install, check=True, capture_output=True, text=True)
    return folder / "site"


def run(site, *arguments):
    """Run Python on the folder of installed packages and this checkout; the output, if it succeeds."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [site, ROOT])), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, cwd=site)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def offer(site, package, module, **entry_points):
    """Install a package by hand: one module of the given source, and entry points in the group of backbones."""
    name = package.replace("-", "_")
    (site / f"{name}.py").write_text(module)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{key} = {name}:{value}" for key, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[mmdls.backbones]", *lines]) + "\n")
    importlib.invalidate_caches()


NET = "class Net:\n    'A net.'\n    def forward(self): ...\n"


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages in this process: a home with the built-in part 'conv', and a folder for more."""
    (tmp_path / "some_home.py").write_text("from some_registry import parts\n@parts.register('conv')\n" + NET)
    module = type(sys)("some_registry")
    module.parts = Registry("backbones", "some_home", ["forward"])
    monkeypatch.setitem(sys.modules, "some_registry", module)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path, module.parts
    for name in [n for n, m in sys.modules.items() if str(getattr(m, "__file__", "")).startswith(str(tmp_path))]:
        del sys.modules[name]


# -- a package that was really installed -------------------------------------------------------------------------


def test_listing_does_not_import_a_plugin_and_using_it_does(site):
    run(
        site,
        "-c",
        """
import sys
from mmdls.registry import backbones

assert {"conv", "resnet18", "tiny"} <= {*backbones}, list(backbones)
assert "tiny" in backbones and len(backbones) == len([*backbones]) and "tiny" in repr(backbones)
assert backbones["conv"].__name__ == "ConvBackbone"
row = backbones.table().loc["tiny"]
assert list(row) == ["mmdls_example:TinyBackbone", "(plug-in, not loaded)"], list(row)
assert "mmdls_example" not in sys.modules
part = backbones["tiny"]
assert "mmdls_example" in sys.modules and part.__name__ == "TinyBackbone"
assert backbones.table().loc["tiny", "about"] == "Two strided convolutions with group normalisation."
assert backbones["tiny"] is part
""",
    )


def test_mmdls_trains_with_an_installed_backbone_by_name(site):
    run(
        site,
        "-c",
        """
from mmdls import MMDLS, Part, SliceEncoder, Trainer
from mmdls.datasets import make_nsclc_cohort

X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, return_X_y=True, random_state=0)
lesion = ("lesion", SliceEncoder(backbone=Part("tiny", width=4)), ["lesion_image"])
model = MMDLS([lesion], trainer=Trainer(max_epochs=2), random_state=0).fit(X, y)
nets = [type(module).__module__ for module in model.net_.module_.modules()]
assert "mmdls_example" in nets, nets
assert model.predict(X).notna().all(axis=None)
""",
    )


@pytest.mark.slow
def test_a_search_finds_the_parts_of_an_installed_plugin_unasked(site):
    run(
        site,
        "-c",
        """
import numpy as np
from mmdls import MMDLS, OptunaSearch, Trainer
from mmdls.cohort import find_tasks
from mmdls.datasets import make_nsclc_cohort
from mmdls.search import search_space_of

X, y = make_nsclc_cohort(40, n_slices=2, image_size=16, return_X_y=True, random_state=0)
rng = np.random.default_rng(0)
X = X[["lesion_image"]].assign(ct_report=rng.choice(["one nodule", "many nodules"], len(X)))
y = y[["subtype"]].assign(nodules_count=rng.poisson(3, len(X)))
assert find_tasks(y)["nodules"].kind == "count"
model = MMDLS(trainer=Trainer(max_epochs=1), random_state=0)
space = search_space_of(model)
(name,) = [name for name in space if name.endswith("backbone")]
assert "tiny" in space[name].choices and any("[tiny]__width" in each for each in space), list(space)
search = OptunaSearch(model, n_trials=12, cv=2, random_state=0).fit(X, y)
tried = {value for key in search.cv_results_ if key.endswith("backbone") for value in search.cv_results_[key]}
assert "tiny" in tried, tried
encoders = {part: type(encoder).__name__ for part, encoder, _ in search.best_estimator_.modalities_}
assert encoders == {"lesion": "SliceEncoder", "ct": "ReportEncoder"}, encoders
""",
    )


def test_the_example_plugin_passes_its_own_test(site):
    output = run(site, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE))
    assert "4 passed" in output


def test_broken_and_colliding_packages_hurt_only_those_who_use_them(site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    offer(folder, "mmdls-broken", "import a_module_that_is_not_there\n", broken="Net")
    offer(folder, "mmdls-greedy", NET, conv="Net")
    run(
        folder,
        "-c",
        """
from mmdls.registry import backbones

assert {"broken", "conv", "resnet18", "tiny"} <= {*backbones}
assert list(backbones.table().index) == list(backbones)
assert backbones["resnet10"].__name__ == "ResNet10Backbone"
assert backbones["tiny"].__name__ == "TinyBackbone"
try:
    backbones["broken"]
except ImportError as error:
    for word in ("backbones['broken']", "mmdls-broken", "a_module_that_is_not_there", "uninstall"):
        assert word in str(error), error
else:
    raise AssertionError("a broken package went unnoticed")
try:
    backbones["conv"]
except ValueError as error:
    assert "'mmdls.modules.backbones._small:ConvBackbone'" in str(error) and "'mmdls_greedy:Net'" in str(error), error
else:
    raise AssertionError("a taken name went unnoticed")
""",
    )


def test_who_asks_all_parts_leaves_broken_and_colliding_packages_out_with_a_warning(packages):
    folder, parts = packages
    offer(folder, "some-broken", "import a_module_that_is_not_there\n", broken="Net")
    offer(folder, "some-greedy", NET, conv="Net")
    with pytest.warns(UserWarning, match="left out") as told:
        found = parts.available()
    assert list(found) == ["conv"] and found["conv"].__module__ == "some_home"
    assert {"some-broken", "some_greedy"} <= {
        word for w in told for word in ("some-broken", "some_greedy") if word in str(w.message)
    }


# -- taken names ---------------------------------------------------------------------------------------------------


def test_a_plugin_cannot_have_the_name_of_a_built_in_part(packages):
    folder, parts = packages
    offer(folder, "some-net", NET, conv="Net")
    with pytest.raises(ValueError, match=r"'conv'.*'some_home:Net'.*'some_net:Net'"):
        parts["conv"]
    assert parts.table().loc["conv", "source"] == "some_home:Net and some_net:Net"


def test_two_plugins_cannot_have_one_name(packages):
    folder, parts = packages
    offer(folder, "one-net", NET, vit="Net")
    offer(folder, "two-net", NET, vit="Net")
    assert list(parts) == ["conv", "vit"]
    for _ in range(2):  # whoever was loaded first must not win the second time
        with pytest.raises(ValueError, match=r"'vit'.*(one_net.*two_net|two_net.*one_net)"):
            parts["vit"]
    assert parts["conv"].__module__ == "some_home"


def test_two_classes_cannot_have_one_name():
    parts = Registry("poolings", "json")
    parts.register("mean")(type("First", (), {}))
    with pytest.raises(ValueError, match=r"poolings\['mean'\] is taken by '.*First'; '.*Second'"):
        parts.register("mean")(type("Second", (), {}))
    assert parts["mean"].__name__ == "First"


def test_a_class_defined_again_takes_its_own_place():
    parts = Registry("poolings", "json")
    first, again = (parts.register("mean")(type("Same", (), {})) for _ in range(2))
    assert parts["mean"] is again is not first


def test_a_plugin_may_also_decorate_its_class(packages):
    folder, parts = packages
    offer(folder, "some-net", "from some_registry import parts\n@parts.register('vit')\n" + NET, vit="Net")
    assert parts["vit"].__module__ == "some_net"


# -- parts that are none ---------------------------------------------------------------------------------------------


def test_a_part_without_its_methods_is_refused_by_name(packages):
    folder, parts = packages
    offer(folder, "some-net", "class Net: ...\nnet = Net()\n", bare="Net", instance="net", absent="Missing")
    with pytest.raises(TypeError, match=r"backbones\['bare'\] needs the methods forward; 'some_net:Net' lacks forward"):
        parts["bare"]
    with pytest.raises(TypeError, match=r"backbones\['instance'\] must be a class; got <some_net.Net"):
        parts["instance"]
    with pytest.raises(ImportError, match=r"package some-net.*Missing"):
        parts["absent"]
    assert list(parts) == ["absent", "bare", "conv", "instance"]


def test_a_survival_head_needs_all_its_methods():
    class Headless:
        def forward(self): ...

        def loss(self): ...

    with pytest.raises(TypeError, match="lacks prepare, risk, fit_baseline, survival_function"):
        registry.survival_heads.register("headless")(Headless)
    assert "headless" not in registry.survival_heads


# -- a mapping -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wrong", "right"), [("resnet-18", "resnet18"), ("resnt10", "resnet10"), ("Conv", "conv")])
def test_a_misspelt_name_is_answered_with_the_nearest(wrong, right):
    with pytest.raises(KeyError, match=rf"backbones has no '{wrong}'. Did you mean '{right}'.*Known: .*conv.*resnet10"):
        registry.backbones[wrong]


def test_a_name_like_no_other_is_answered_with_all_names():
    with pytest.raises(KeyError) as error:
        registry.poolings["xyz"]
    assert "Did you mean" not in str(error.value) and all(name in str(error.value) for name in registry.poolings)


KINDS = [value for value in vars(registry).values() if isinstance(value, Registry)]


@pytest.mark.parametrize("parts", KINDS, ids=lambda parts: parts.kind)
def test_a_registry_is_a_mapping(parts):
    assert isinstance(parts, Mapping) and getattr(registry, parts.kind) is parts
    names = list(parts)
    assert names == sorted(set(names)) and len(parts) == len(names)
    assert list(parts.keys()) == names and [*parts.items()] == list(zip(names, parts.values(), strict=True))
    assert all(name in parts and parts[name] is parts.get(name) for name in names)
    assert None not in parts and parts.get("no such part", 3) == 3
    with pytest.raises(TypeError, match="item assignment"):
        parts["new"] = object


@pytest.mark.parametrize("parts", KINDS, ids=lambda parts: parts.kind)
def test_the_table_lists_every_part_with_its_origin(parts):
    table = parts.table()
    assert list(table.index) == list(parts) and list(table.columns) == ["source", "about"]
    for name, part in parts.items():
        source, about = table.loc[name]
        assert source == f"{part.__module__}:{part.__qualname__}"
        assert about and part.__doc__.startswith(about)
