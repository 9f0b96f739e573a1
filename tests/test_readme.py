"""What the README shows runs, on fewer patients and epochs than it says."""

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALLER = {
    "make_nsclc_cohort(400": "make_nsclc_cohort(60",
    "slice(0, 300)": "slice(0, 40)",
    "slice(300, 400)": "slice(40, 60)",
    "max_epochs=40": "max_epochs=1",
    "verbose=1": "verbose=0",
    "CohortKFold(5": "CohortKFold(2",
}


def test_the_readme_runs():
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    for shown, smaller in SMALLER.items():
        assert shown in code, shown
        code = code.replace(shown, smaller)
    names: dict = {}
    code = code.replace("set_params(", "set_params(max_epochs=1, ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "README.md", "exec"), names)
    assert names["model"].get_params()["lesion__backbone"] == "conv"


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not target.startswith("http") and not (page.parent / target).exists()]
