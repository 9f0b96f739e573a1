"""Every block of Python of the pages that no other test runs is run, one page after the other."""

import warnings

import matplotlib
import pytest

from tests.pages import ROOT, code_of

PAGES = ["start", "missing", "cross_validation", "tuning", "survival", "plugins"]
# Pages whose code other tests run, and those whose blocks are fragments.
ELSEWHERE = {"explanation", "preparation", "saving", "scans", "tables", "uncertainty"}
FRAGMENTS = {"benchmark", "parts", "radiomics", "scaling", "segmentation", "statistics"}


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
    assert with_code <= {*PAGES, *ELSEWHERE, *FRAGMENTS}
