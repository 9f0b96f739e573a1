"""Every block of Python of the pages that no other test runs is run, one page after the other."""

import re
import warnings

import matplotlib
import pytest

from tests.pages import ROOT, code_of
from tests.test_page_fragments import FRAGMENTS

PAGES = ["start", "speed", "missing", "cross_validation", "tuning", "survival", "plugins", "reliability"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_the_code_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code_of(f"docs/{name}.md"), name, "exec"), {"__name__": "__main__"})


def test_every_page_with_code_is_known():
    with_code = {path.stem for path in (ROOT / "docs").glob("*.md") if "```python" in path.read_text(encoding="utf-8")}
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    elsewhere = re.findall(r"(?:code|blocks)_of\(\"docs/(\w+)\.md\"\)", tests)
    fragments = {page.__name__ for page in FRAGMENTS}
    assert with_code == {*PAGES, *elsewhere, *fragments}, "run the page in a test, or add it to PAGES"


def test_every_page_is_in_the_contents_of_the_site():
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
    listed = {line.strip().rpartition("<")[2].rstrip(">") for text in pages.values() for line in text.splitlines()}
    orphans = {name for name, text in pages.items() if text.startswith("---\norphan: true")}
    assert set(pages) - orphans - {"index"} <= listed, "add the page to a toctree, such as that of docs/guide.md"
