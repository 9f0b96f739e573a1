"""A file is whole or as it was; nothing else is ever seen."""

import ast
import os
from pathlib import Path

import pytest

from mmdls._files import whole_file

ROOT = Path(__file__).parents[1]
# Written into folders that are new, or that are moved to their place when they are whole.
FREE = {"mmdls/images/_store.py", "mmdls/datasets/_folders.py", "mmdls/report/_html.py", "benchmarks/speed/_loading.py"}
WRITERS = {"write_text", "write_bytes", "to_csv", "savefig", "to_excel", "to_parquet", "to_json", "to_html"}


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "table.nii.gz"
    with whole_file(path) as partial:
        assert partial.name.endswith(".nii.gz") and partial.parent == tmp_path
        partial.write_text("new" * 9999)
        assert not path.exists()
    assert path.read_text() == "new" * 9999 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "report.html"
    path.write_text("last week's report")
    with pytest.raises(error), whole_file(path) as partial:
        partial.write_text("half of")
        raise error
    assert path.read_text() == "last week's report" and list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_what_was_there(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    child = os.fork()
    if child == 0:
        with whole_file(path) as partial:
            partial.write_text("half of")
            os._exit(1)
    os.waitpid(child, 0)
    assert path.read_text() == "before"
    with whole_file(path) as partial:
        partial.write_text("after")
    assert path.read_text() == "after"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "report.html"
    link.symlink_to(tmp_path / "disk" / "report.html")
    with whole_file(link) as partial:
        partial.write_text("x")
    assert link.is_symlink() and (tmp_path / "disk" / "report.html").read_text() == "x"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"table.csv' cannot be written: there is no folder .*nowhere'"):
        with whole_file(tmp_path / "nowhere" / "table.csv"):
            pass


@pytest.mark.parametrize(
    "file",
    [*ROOT.glob("mmdls/**/*.py"), *ROOT.glob("benchmarks/**/*.py")],
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_every_writer_writes_whole_files(file):
    """What is written stands inside a ``with whole_file(...)``, or in a folder that appears all at once."""
    if str(file.relative_to(ROOT)) in FREE:
        return
    tree = ast.parse(file.read_text())
    inside = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and any("whole_file(" in ast.unparse(item) for item in block.items)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        writes = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITERS
        in_partial = writes and "partial" in ast.unparse(node)
        in_memory = writes and (not node.args or "/proc/" in ast.unparse(node))
        assert not writes or id(node) in inside or in_partial or in_memory, f"line {node.lineno}"
