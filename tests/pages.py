"""The pages of the documentation, as tests read and run them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def page(name):
    """The text of a page, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(name):
    """The blocks of Python of a page."""
    return re.findall(r"```python\n(.*?)```", page(name), re.DOTALL)


SMALLER = {
    "make_nsclc_cohort(400": "make_nsclc_cohort(60",
    "MMDLS(random_state=0)": "MMDLS(trainer=Trainer(max_epochs=1), random_state=0)",
    "[:300]": "[:40]",
    "[300:]": "[40:]",
    "CohortKFold(5": "CohortKFold(2",
    "set_params(": "set_params(trainer__max_epochs=1, ",
    "from mmdls import MMDLS, Part": "first = model\nfrom mmdls import MMDLS, Part",
}


def readme_code():
    """All examples of the README as one program, on fewer patients and epochs than it says."""
    code = code_of("README.md")
    for shown, smaller in SMALLER.items():
        assert shown in code, shown
        code = code.replace(shown, smaller)
    return "from mmdls import Trainer\n" + code


def code_of(name):
    """All blocks of Python of a page, one after the other."""
    return "\n".join(blocks_of(name))
