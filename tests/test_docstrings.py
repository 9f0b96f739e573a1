"""Every public name has a docstring that says what it is, takes, returns, refuses and how it is used."""

import ast
import inspect
import re
import textwrap
from importlib import import_module

import pytest

import mmdls
from mmdls.registry import Registry

validate = pytest.importorskip("numpydoc.validate").validate
get_doc_object = pytest.importorskip("numpydoc.docscrape").get_doc_object

# No docstring, no summary, parameters that are not or wrongly named, nothing about what is returned, no example.
CHECKS = {"GL08", "SS01", "PR01", "PR02", "RT01", "EX01"}
# Parameters stand at MMDLS, of which these take most; the warning is scikit-learn's.
ELSEWHERE = {"MultimodalClassifier", "MultimodalSurvival", "InconsistentVersionWarning"}
# Of any function that steps; names of losses; logits.
NO_MONTHS = {"mmdls.metrics.step_values", "mmdls.modules.LossName", "mmdls.modules.Outputs"}
# Others are of one of several forms, or of no kind that has a shape.
ARRAY = re.compile(r"(dict of str to )?(structured )?(array|ndarray|Tensor)\b")


def public_names():
    """Every public object of this library once, by the first module that offers it."""
    seen = set()
    for module in mmdls._MODULES:
        home = import_module(f"mmdls.{module}")
        for name in home.__all__:
            value = getattr(home, name)
            own = getattr(value, "__module__", "").startswith("mmdls") and not isinstance(value, Registry)
            if callable(value) and own and id(value) not in seen:
                seen.add(id(value))
                yield f"mmdls.{module}.{name}"


def value_of(name):
    module, _, short = name.rpartition(".")
    return getattr(import_module(module), short)


@pytest.mark.parametrize("name", sorted(public_names()))
def test_a_public_name_says_what_it_takes_returns_and_how_it_is_used(name):
    found = {code: message for code, message in validate(name)["errors"] if code in CHECKS}
    short = name.rpartition(".")[2]
    if short in ELSEWHERE:
        found.pop("PR01", None)
    assert not found, found


@pytest.mark.parametrize("name", sorted(public_names()))
def test_arrays_have_shapes_and_times_are_in_months(name):
    value = value_of(name)
    about = get_doc_object(value)
    given = [each for part in ("Parameters", "Returns") for each in about[part]]
    arrays = [each for each in given if ARRAY.match(each.type)]
    assert not [each for each in arrays if "shape" not in each.type]
    if any(re.fullmatch(r"(event, )?time|horizons?|times", each.name) for each in given) and name not in NO_MONTHS:
        assert "onths" in inspect.getdoc(value)


@pytest.mark.parametrize("name", sorted(public_names()))
def test_a_public_name_says_what_it_refuses(name):
    """Of what is raised in its own lines: of a function, or of the ``__init__`` of a class."""
    value = value_of(name)
    function = vars(value).get("__init__") if inspect.isclass(value) else value
    if function is None or function.__code__.co_filename.startswith("<"):  # of a dataclass
        return
    lines = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))
    names = {ast.unparse(each.exc).partition("(")[0] for each in lines if isinstance(each, ast.Raise) and each.exc}
    said = inspect.getdoc(value).partition("\nRaises\n------\n")[2]
    for error in names:
        kinds = {each.__name__ for each in eval(error, function.__globals__).__mro__} - {"Exception", "BaseException"}
        assert any(kind in said for kind in kinds), f"say under Raises when {error} comes"
