"""The documentation site, by Sphinx; ``./dev docs`` builds it into docs/_build/html."""

import importlib
import os
import re
import shutil
import warnings
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "agg")
warnings.filterwarnings("ignore", category=FutureWarning)

import mmdls  # noqa: E402
from mmdls.registry import Registry  # noqa: E402

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "mmdls"
author = copyright = "The mmdls developers"
version = release = mmdls.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
]
exclude_patterns = [
    "_build",
    "_templates",
    "gallery/*.ipynb",
    "gallery/*.py",
    "gallery/*.md5",
    "sg_execution_times.rst",
]
suppress_warnings = ["config.cache"]  # sphinx-gallery's settings hold a class, which cannot be stored

templates_path = ["_templates"]
highlight_language = "none"

html_theme = "pydata_sphinx_theme"
html_title = "mmdls"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
# Pages without pages below them have no sidebar to the left.
html_sidebars = dict.fromkeys(
    ["index", "start", "architecture", "limits", "glossary", "contributing", "changelog", "genindex"], []
)
html_theme_options = {
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc", "sg_download_links"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
}

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

sphinx_gallery_conf = {
    "examples_dirs": "../examples/gallery",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "show_memory": False,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),
    "remove_config_comments": True,
    "write_computation_times": False,
    "image_srcset": ["2x"],
    "backreferences_dir": None,
}

# Pages of the repository that stand outside of docs/, and where the site has them.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def _link(match, folder):
    """A link of a page in ``folder`` of the repository, as it leads from a page in docs/."""
    target, _, anchor = match[1].partition("#")
    if not target or "://" in target:
        return match[0]
    path = os.path.relpath((folder / target).resolve(), ROOT)
    if path.startswith("benchmarks/results/"):
        path = path.removeprefix("benchmarks/")
    elif path in OUTSIDE:
        path = OUTSIDE[path]
    else:
        path = os.path.relpath(path, "docs")
    return f"]({path}{'#' + anchor if anchor else ''})"


def _links(text, folder):
    return re.sub(r"\]\(([^)\s]+)\)", lambda match: _link(match, folder), text)


def _first_line(value):
    return (value.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")


def write_api():
    """One page a public module, with every name of its ``__all__``; a name stands where it is found first."""
    folder = DOCS / "api"
    folder.mkdir(exist_ok=True)
    homes, contents = {}, []
    pages = ["mmdls", *(f"mmdls.{name}" for name in mmdls._MODULES)]
    for page in pages:
        module = importlib.import_module(page)
        new, known, kinds = [], [], []
        for name in sorted(module.__all__, key=str.lower):
            value = getattr(module, name)
            if isinstance(value, Registry):
                kinds.append(name)
            elif id(value) in homes:
                known.append(homes[id(value)])
            elif name != "__version__":
                homes[id(value)] = f"{page}.{name}"
                new.append(name)
        lines = [page, "=" * len(page), "", f".. module:: {page}", "", module.__doc__.strip(), ""]
        if new:
            lines += [".. autosummary::", "   :toctree: generated", "", *(f"   {name}" for name in new), ""]
        if kinds:
            lines += ["Registries, each with its parts by name:", ""]
            for name in kinds:
                parts = ", ".join(f"``{part}``" for part in getattr(module, name))
                lines += [f".. data:: {name}", "", f"   {parts}", ""]
        if known:
            lines += ["Also here: " + ", ".join(f":py:obj:`{name}`" for name in known) + ".", ""]
        _write(folder / f"{page}.rst", "\n".join(lines))
        contents += [f":doc:`{page}`", f"   {_first_line(module)}", ""]
    lines = ["API reference", "=============", "", "Every public name, from its docstring.", "", *contents]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {page}" for page in pages), ""]
    _write(folder / "index.rst", "\n".join(lines))


def write_results():
    """The results of the benchmarks, with their figures."""
    source, target = ROOT / "benchmarks" / "results", DOCS / "results"
    for path in source.rglob("*"):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".csv"):
            shutil.copy2(path, copy)
        elif path.suffix == ".md" and path.parent == source:
            _write(copy, path.read_text(encoding="utf-8"))


def _write(path, text):
    """Write a page if it has changed, so that a second build reads it no more than it must."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _folder_of(name):
    return ROOT / "benchmarks" / "results" if name.startswith("results/") else DOCS


def setup(app):
    app.connect("config-inited", lambda app, config: (write_api(), write_results()))
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-skip-member", skip_member)


def read_page(app, name, content):
    if os.fspath(app.env.doc2path(name)).endswith(".md"):
        folder = _folder_of(name)
        content[0] = _links(content[0], folder)
        if folder != DOCS:  # links are written as from docs/
            content[0] = re.sub(
                r"\]\((?!\w+://)([^)#\s]+)", lambda m: f"]({os.path.relpath(m[1], 'results')}", content[0]
            )


def read_included(app, path, name, content):
    content[0] = _links(content[0], (DOCS / path).resolve().parent)


def skip_member(app, what, name, value, skip, options):
    """What a class inherits from other libraries is described there."""
    home = getattr(value, "__module__", None) or getattr(getattr(value, "fget", None), "__module__", "mmdls")
    return True if not str(home).startswith("mmdls") else None
