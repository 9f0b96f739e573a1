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


def code_of(name):
    """All blocks of Python of a page, one after the other."""
    return "\n".join(blocks_of(name))
