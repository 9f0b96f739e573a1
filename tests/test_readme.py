"""What the README shows runs, on fewer patients and epochs than it says."""

import ast
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

import mmdls
from tests.pages import readme_code

ROOT = Path(__file__).parents[1]


def test_the_readme_runs():
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(readme_code(), "README.md", "exec"), names)
    assert names["model"].get_params()["lesion__backbone"] == "antialiased"
    model, X = names["first"], names["X"][:3]
    assert list(model.predict(X)) == ["subtype", "stage", "dfs", "os"]
    assert len(model.predict_survival_function(X, "os")) == 3


def test_the_install_lines_name_files_and_extras_that_are_there():
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Install")[2].partition("## More")[0]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = re.findall(r'pip install -c (\S+) "\.\[([\w,]+)\]"', section)
    assert len(lines) == 3 and all((ROOT / file).is_file() for file, _ in lines)
    assert {name for _, names in lines for name in names.split(",")} <= set(extras)
    assert set(extras) <= set(re.findall(r"`(\w+)`", section))


def test_every_name_of_the_readme_is_there_after_importing_the_package():
    """Each with the package imported anew, so that nothing is there because something else was imported before."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("## Contents")[2].partition("## Tables")[0]
    paths = sorted(set(re.findall(r"`(mmdls\.[\w.]+)", text)))
    names = sorted(set(re.findall(r"`([A-Z]\w+)`", table)))
    assert {"mmdls.tables", "mmdls.plotting", "mmdls.registry.backbones.table", "mmdls.report.report"} <= set(paths)
    assert {"MMDLS", "OptunaSearch", "VarianceFilter", "CorrelationFilter"} <= set(names)
    forget = "for name in [name for name in sys.modules if name.startswith('mmdls')]: del sys.modules[name]"
    lines = [f"{forget}\nimport mmdls\n{path}" for path in paths]
    names = [name for name in names if name not in ("Pipeline", "ColumnTransformer")]
    code = "\n".join(["import sys", *lines, f"from mmdls import {', '.join(names)}"])
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_what_loads_on_first_use():
    tree = ast.parse((ROOT / "mmdls" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: f"{node.module}" for node in block.body for alias in node.names}
    modules = dict.fromkeys(mmdls._MODULES, "mmdls")
    assert seen == {**modules, **mmdls._HOME}
    found = {file.stem if file.suffix else file.name for file in (ROOT / "mmdls").iterdir()}
    inner = {"py", "cli", "training", "__pycache__"}
    assert {name for name in found - inner if not name.startswith("_")} == set(mmdls._MODULES)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()]


@pytest.mark.slow
def test_a_type_checker_infers_the_class_of_a_public_name(tmp_path):
    (tmp_path / "editor.py").write_text("from mmdls import MMDLS\n\nreveal_type(MMDLS().fit)\n")
    api = pytest.importorskip("mypy.api")
    shown, errors, _ = api.run(["--follow-imports=silent", "--cache-dir", str(tmp_path), str(tmp_path / "editor.py")])
    assert "-> mmdls.estimators.multimodal._mmdls.MMDLS" in shown, shown + errors
