"""What CONTRIBUTING.md and the README say of the repository is so."""

import re
import tomllib

import pytest

from mmdls import SliceEncoder, registry
from mmdls.search import search_space_of
from mmdls.testing import check_part
from tests.pages import ROOT, code_of, page

PROJECT = tomllib.loads(page("pyproject.toml"))
EXTRAS = set(PROJECT["project"]["optional-dependencies"])
DEV = page("dev")


def test_the_new_part_keeps_its_contract_and_is_found(monkeypatch):
    assert "sum" not in registry.poolings  # which loads the others
    monkeypatch.setattr(registry.poolings, "_parts", {**registry.poolings._parts})
    exec(compile(code_of("CONTRIBUTING.md"), "CONTRIBUTING.md", "exec"), {"__name__": "contributing"})
    check_part("poolings", "sum")
    encoder = SliceEncoder(pooling="sum")
    assert encoder.get_params()["pooling"] == "sum"
    assert "sum" in search_space_of(encoder)["pooling"].choices


@pytest.mark.parametrize("path", re.findall(r"^\|[^|]+\| `([^`]+)` \|$", page("CONTRIBUTING.md"), re.MULTILINE))
def test_the_file_to_copy_is_there(path):
    assert (ROOT / path).exists()


def test_the_numbers_and_names_are_those_of_the_project():
    text, readme = page("CONTRIBUTING.md"), page("README.md")
    assert int(re.search(r"of which (\d+) %", text)[1]) == PROJECT["tool"]["coverage"]["report"]["fail_under"]
    assert re.search(r"Python (\S+) or newer", readme)[1] == PROJECT["project"]["requires-python"].removeprefix(">=")
    installed, lowest = re.findall(r'-e "\.\[([\w,]+)\]"', DEV)
    alone = set(re.search(r"It alone installs the extras (.*?), so", text.replace("\n", " "))[1].split("`")[1::2])
    assert alone and alone <= set(lowest.split(",")) - set(installed.split(","))
    listed = readme.partition("Extras: ")[2].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == EXTRAS
    assert readme.index("docs/kaplan_meier.png") < readme.index("```python") < readme.index("./dev demo") < 2000
    assert "450 simulated patients" in readme and "default=450" in page("benchmarks/compare.py")
