"""The examples of the gallery run and draw, and a site with dead links or files from elsewhere is found out."""

import runpy
import subprocess
import sys
import warnings

import matplotlib
import pytest

from tests.pages import ROOT, page

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
EXAMPLES = sorted((ROOT / "examples" / "gallery").glob("*.py"))


def test_there_are_enough_examples_and_all_are_built():
    assert len(EXAMPLES) >= 12
    assert all(path.name.startswith("plot_") for path in EXAMPLES), "the gallery runs files called plot_*"


def test_classes_are_shown_with_their_methods():
    assert 'templates_path = ["_templates"]' in page("docs/conf.py")
    assert ":members:" in page("docs/_templates/autosummary/class.rst")


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_draws(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr("matplotlib.figure.Figure.subplots", _counting(drawn))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(example))
    plt.close("all")
    assert drawn


def _counting(drawn):
    subplots = matplotlib.figure.Figure.subplots

    def counted(figure, *args, **kwargs):
        drawn.append(figure)
        return subplots(figure, *args, **kwargs)

    return counted


SITE = {
    "index.html": '<a href="other.html#here">x</a><img src="data:image/png;base64,AA"><a href="https://example.org">y</a>',
    "other.html": '<p id="here"></p><a href="index.html">z</a>',
}


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("", ""),
        ('<a href="nowhere.html">', "leads to no file"),
        ('<a href="other.html#there">', "leads to no such place"),
        ('<a href="#there">', "leads to no such place"),
        ('<script src="https://cdn.example.org/x.js"></script>', "not there without a network"),
        ('<img src="missing.png">', "leads to no file"),
    ],
)
def test_a_dead_link_is_found(page, told, tmp_path):
    for name, text in SITE.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "more.html").write_text(page)
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "check_site.py", tmp_path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == bool(told) and told in checked.stdout
