"""The house stands as it was drawn: floors, imports, and public names that explain themselves."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("mmdls/**/*.py"))

# A file imports from its own package, and from packages on the floors below its own.
FLOORS = {
    "_files": 0,
    "_hints": 0,
    "_memory": 0,
    "_parallel": 0,
    "_parameters": 0,
    "_secrets": 0,
    "_versions": 0,
    "_provenance": 3,
    "registry": 1,
    "cohort": 2,
    "kernels": 1,
    "parts": 2,
    "images": 2,
    "metrics": 2,
    "modules": 2,
    "tasks": 3,
    "encoders": 3,
    "datasets": 3,
    "model_selection": 3,
    "audit": 3,
    "plotting": 3,
    "scans": 3,
    "training": 4,
    "evaluation": 4,
    "estimators": 5,
    "search": 5,
    "preparation": 6,
    "tables": 6,
    "zoo": 6,
    "persistence": 6,
    "testing": 7,
    "uncertainty": 7,
    "explain": 7,
    "report": 7,
    # Public names of mmdls itself stand on floor 8, and the command line alone is built of them.
    "cli": 9,
    "__main__": 10,
}

# Packages that only extras bring, and the extra each belongs to.
OPTIONAL = {
    "PIL": ("imaging",),
    "matplotlib": ("plot", "report"),
    "captum": ("explain",),
    "nibabel": ("imaging", "scans"),
    "monai": ("monai",),
    "fastrad": ("radiomics",),
    "onnxscript": ("speed",),
    "radiomics": ("radiomics",),
    "SimpleITK": ("scans",),
    "pydicom": ("scans",),
    "highdicom": ("scans",),
}


def name_of(file):
    return str(file.relative_to(ROOT))


def package_of(file):
    return file.relative_to(ROOT / "mmdls").with_suffix("").parts[0]


def imports(tree):
    """Every module that a tree imports, wherever the import stands: (full name, node)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def calls(tree, function):
    """Calls of a function by its bare name."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
    ]


def broken_floors(own_package, tree):
    """What a file of a package imports from its own floor or above, outside its package."""
    upward = []
    for name, node in imports(tree):
        package, *inside = name.split(".")
        if package in ("benchmarks", "examples", "tests"):
            upward.append(f"line {node.lineno}: {name}")
        elif package == "mmdls" and inside[:1] != [own_package]:
            # Anything else is a public name of mmdls itself, which stands above all its packages but the command line.
            if FLOORS.get(next(iter(inside), ""), 8) >= FLOORS[own_package]:
                upward.append(f"line {node.lineno}: {name}")
    return upward


@pytest.fixture(params=FILES, ids=name_of)
def source(request):
    return request.param, ast.parse(request.param.read_text())


# -- floors ----------------------------------------------------------------------------------------------------------


def test_a_file_imports_only_from_the_floors_below_its_own(source):
    file, tree = source
    if file == ROOT / "mmdls" / "__init__.py":
        blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        typed = [node for node in blocks if ast.unparse(node.test) == "TYPE_CHECKING"]
        untyped = {id(node) for block in typed for node in ast.walk(block)}
        assert not [name for name, node in imports(tree) if name.startswith("mmdls") and id(node) not in untyped]
        return
    assert package_of(file) in FLOORS, f"give {package_of(file)!r} a floor in FLOORS and docs/architecture.md"
    assert not broken_floors(package_of(file), tree)


@pytest.mark.parametrize(
    ("own_package", "line"),
    [
        ("registry", "import mmdls.cohort"),
        ("modules", "from mmdls.metrics import auc_score"),
        ("modules", "from mmdls import metrics"),
        ("metrics", "def f():\n    from mmdls.estimators import MMDLS"),
        ("estimators", "if TYPE_CHECKING:\n    from mmdls.report import write_report"),
        ("training", "from mmdls.estimators import MMDLS"),
        ("datasets", "from mmdls import MMDLS"),
        ("plotting", "import tests.conftest"),
        ("report", "import mmdls"),
    ],
)
def test_an_import_upward_is_noticed_wherever_it_stands(own_package, line):
    assert broken_floors(own_package, ast.parse(line))
    assert not broken_floors(own_package, ast.parse(f"from mmdls.{own_package} import x\nimport numpy"))


def test_modules_are_named_in_strings_only_where_they_load_on_first_use():
    by_name = {name_of(file) for file in FILES if calls(ast.parse(file.read_text()), "import_module")}
    assert by_name == {
        "mmdls/__init__.py",
        "mmdls/estimators/__init__.py",
        "mmdls/cli/_commands.py",  # modules that the user names
        "mmdls/registry.py",
        "mmdls/persistence/_types.py",
    }


def test_folders_of_estimators_import_only_from_those_named_before_them_in_the_page():
    page = (ROOT / "docs" / "architecture.md").read_text().partition("| folder of `estimators/` |")[2]
    folders = re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE)
    estimators = ROOT / "mmdls" / "estimators"
    assert set(folders) == {file.parent.name for file in estimators.glob("*/__init__.py")}
    for file in estimators.glob("*/_*.py"):
        above = folders[: folders.index(file.parent.name) + 1]
        found = {
            name.split(".")[2]
            for name, _ in imports(ast.parse(file.read_text()))
            if name.startswith("mmdls.estimators.")
        }
        assert found & {*folders} <= {*above}, name_of(file)


def test_tables_meet_tensors_in_training_and_estimators_only(source):
    file, tree = source
    packages = {name.partition(".")[0] for name, _ in imports(tree)}
    own_package = package_of(file)
    if own_package not in ("training", "estimators", "testing"):
        assert not {"pandas", "torch"} <= packages
    if own_package == "modules":
        assert not packages & {"pandas", "sklearn", "sksurv", "skorch"}, "a module knows tensors only"
    if own_package == "metrics":
        assert not packages & {"pandas", "torch", "skorch"}, "a metric knows arrays only"


# -- imports -----------------------------------------------------------------------------------------------------------


def test_importing_the_package_imports_neither_torch_nor_the_library_nor_a_plugin():
    code = """
import sys
import mmdls
heavy = {"torch", "skorch", "sklearn", "sksurv", "scipy", "optuna", "joblib", "matplotlib", "PIL", "numpy", "pandas"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert not [name for name in sys.modules if name.startswith("mmdls.")]
assert set(mmdls.__all__) <= set(dir(mmdls))
assert not heavy & set(sys.modules), "dir() imported something"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_tables_need_no_torch():
    quick = "cohort, mmdls.evaluation, mmdls.images, mmdls.metrics, mmdls.preparation, mmdls.scans"
    code = f"import sys, mmdls.{quick}; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_models_of_tables_are_fitted_and_evaluated_without_torch():
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from mmdls import ClinicalCox, CoxNet, RadiomicsCox, SurvivalBoosting, SurvivalForest, evaluate
from mmdls.datasets import make_nsclc_cohort
X, y = make_nsclc_cohort(40, n_slices=1, image_size=8, return_X_y=True, random_state=0)
model = ClinicalCox(endpoint="os", alpha=10).fit(X, y)
evaluate(model, X, y[["os_time", "os_event"]], horizons=(), n_resamples=0)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_of_the_package_load_on_first_use():
    import mmdls

    for name in mmdls.__all__:
        assert getattr(mmdls, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'MMDSL'; it offers .*MMDLS"):
        mmdls.MMDSL  # noqa: B018


def test_optional_packages_are_imported_where_they_are_used_with_the_way_to_get_them(source):
    file, tree = source
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for name, node in imports(tree):
        package = name.partition(".")[0]
        if package not in OPTIONAL:
            continue
        local = any(node in ast.walk(function) for function in functions)
        assert local, f"line {node.lineno}: {package} is optional; import it in the function that uses it"
        # One function may import an optional package for all the others.
        texts = [other.read_text() for other in FILES if package_of(other) == package_of(file)]
        assert any(f'pip install "mmdls[{extra}]"' in text for text in texts for extra in OPTIONAL[package]), (
            f'line {node.lineno}: say how to get {package}: pip install "mmdls[{OPTIONAL[package][0]}]"'
        )


def test_what_is_imported_everywhere_is_a_requirement():
    """Every package imported by the library is required, brought by a requirement, optional, or Python's own."""
    project = (ROOT / "pyproject.toml").read_text()
    brought = {"tqdm": "skorch", "scipy": "scikit-learn", "sklearn": "scikit-learn", "sksurv": "scikit-survival"}
    brought["threadpoolctl"] = "scikit-learn"
    for file in FILES:
        for name, _ in imports(ast.parse(file.read_text())):
            package = name.partition(".")[0]
            if package in sys.stdlib_module_names or package == "mmdls" or package in OPTIONAL:
                continue
            assert f'"{brought.get(package, package)}>=' in project, f"{name_of(file)} imports {package}"


# -- conventions -------------------------------------------------------------------------------------------------------


def test_the_library_does_not_print(source):
    assert not [f"line {node.lineno}" for node in calls(source[1], "print")]


def test_errors_are_never_swallowed(source):
    for node in ast.walk(source[1]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: name the errors you expect"
            caught = {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
            if caught & {"Exception", "BaseException"}:
                assert any(isinstance(inner, ast.Raise) for inner in ast.walk(node)), f"line {node.lineno}"


def test_no_borrowed_networks_and_no_batch_statistics(source):
    file, tree = source
    assert not {name.partition(".")[0] for name, _ in imports(tree)} & {"torchvision", "timm"}
    built = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {
        node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "") for node in built
    }
    assert not [name for name in called if re.match("(Lazy|Sync)?BatchNorm|batch_norm", name)]


def test_no_room_for_odds_and_ends():
    assert not [name_of(f) for f in FILES if f.stem.strip("_") in ("utils", "helpers", "misc", "common", "config")]


# -- documentation -----------------------------------------------------------------------------------------------------


def modules():
    for file in FILES:
        parts = file.relative_to(ROOT).with_suffix("").parts
        yield importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def own_names(module):
    """What a module itself defines and offers in ``__all__``."""
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", "").startswith("mmdls"):
            yield name, value


OFFERED = {
    f"{value.__module__}.{value.__qualname__}": value
    for module in modules()
    for _, value in own_names(module)
    if inspect.isclass(value) or inspect.isfunction(value)
}
PUBLIC = {
    f"{value.__module__}.{value.__qualname__}": value
    for module in modules()
    if module.__name__.count(".") <= 1  # mmdls and its packages; the files inside a package are private
    for _, value in own_names(module)
    if inspect.isclass(value) or inspect.isfunction(value)
}


def documented_parameters(docstring, section="Parameters"):
    """The names in a section of a numpydoc docstring, in their order."""
    lines = iter(inspect.cleandoc(docstring or "").splitlines())
    for line in lines:
        if line == section and next(lines, "").startswith("---"):
            # A section ends where the next one begins: a title, underlined.
            body = list(lines)
            ends = [i for i in range(1, len(body)) if body[i].startswith("---")]
            entries = body[: ends[0] - 1] if ends else body
            heads = [entry.partition(" : ")[0] for entry in entries if entry and not entry.startswith(" ")]
            return [name.strip().lstrip("*") for head in heads for name in head.split(",")]
    return []


def test_the_reader_of_docstrings_reads():
    text = """Do it.

    Parameters
    ----------
    a, b : int
        Numbers.
    *rest : str
        More : of it.

    Returns
    -------
    c : int
    """
    assert documented_parameters(text) == ["a", "b", "rest"]
    assert documented_parameters(text, "Returns") == ["c"]
    assert documented_parameters("Do it.") == []


def test_every_module_offers_names_that_exist():
    for module in modules():
        assert (module.__doc__ or "").strip(), f"{module.__name__} has no docstring"
        names = getattr(module, "__all__", ())
        assert len(set(names)) == len(names) and all(hasattr(module, name) for name in names), module.__name__


@pytest.mark.parametrize("name", OFFERED)
def test_an_offered_name_says_what_it_is(name):
    value = OFFERED[name]
    assert value.__doc__, f"{name} needs a docstring"
    assert not value.__doc__.startswith(f"{value.__name__}("), f"{name} has only what a dataclass writes by itself"
    if inspect.isclass(value):
        methods = [n for n, method in vars(value).items() if not n.startswith("_") and inspect.isfunction(method)]
        assert not [n for n in methods if not inspect.getdoc(getattr(value, n))], "public methods need docstrings"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_documents_every_parameter(name):
    value = PUBLIC[name]
    if inspect.isclass(value) and issubclass(value, Warning):
        return
    documented = documented_parameters(value.__doc__)
    assert len(set(documented)) == len(documented)
    takes = {*inspect.signature(value).parameters} - {"self", "cls"}
    assert set(documented) <= takes, "documented, but not taken"
    # A class may say once that it has the parameters of another one.
    if shared := re.search(r"parameters are those of :class:`(\w+)`", value.__doc__ or ""):
        documented += documented_parameters(getattr(importlib.import_module("mmdls.estimators"), shared[1]).__doc__)
    assert takes <= set(documented), f"{name} does not document {sorted(takes - set(documented))}"
