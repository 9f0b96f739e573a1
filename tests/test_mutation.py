"""The tool that looks for mutants which the tests do not notice is right about those that are known."""

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from benchmarks.mutation import Mutant, drawn, mutants_of, put_in_place, summary
from tests.pages import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants are tested in forked processes")

STEPS = '''"""Sums."""

import functools

LIMIT = 3


def total(values: list[int], start: int = 0) -> int:
    """The sum of what is above zero."""
    for value in values:
        if value > 0:
            start += value
    return start


class Down:
    @staticmethod
    @functools.cache
    def to_zero(n):
        while n > 0:
            n -= 1
        return n


def unused(a, b):
    return a < b
'''
TESTS = """
import pytest
from toy import steps
from toy.steps import Down, total

@pytest.fixture(scope="module")
def five():
    return total([2, 3])

def test_first(five):
    pass

def test_total(five):
    assert five == 5

def test_nothing():
    assert total([-1]) == 0

def test_down():
    assert Down.to_zero(2) == 0
"""
KNOWN = [
    ("start += value", "start -= value", "killed", "test_total"),
    ("value > 0", "(value >= 0)", "survived", ""),  # the same sum
    ("return start", "return None", "killed", "test_total or test_nothing"),
    ("n -= 1", "n += 1", "timeout", ""),
    ("n > 0", "(n <= 0)", "killed", "test_down"),
    ("a < b", "(a <= b)", "no test", ""),
]
RUN = """
import json, sys
from pathlib import Path
from benchmarks.mutation import Mutant, run
mutants = [Mutant(*each) for each in json.loads(sys.stdin.read())]
def report(mutant, outcome, killer, seconds):
    print("found", json.dumps([mutant.new, outcome, killer]))
run(Path.cwd(), ["toy/steps.py"], ["tests/test_steps.py"], mutants, report, patience=2)
"""


def ends(folder, mutants, tests=TESTS, imported=STEPS):
    """New code of every mutant: its end and killer, and what the run printed."""
    for name, text in {"toy/__init__.py": "", "toy/steps.py": imported, "tests/test_steps.py": tests}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    told = json.dumps([[m.file, m.line, m.kind, m.old, m.new, m.source, m.span] for m in mutants])
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=told,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        capture_output=True,
    )
    found = [json.loads(line.partition(" ")[2]) for line in done.stdout.splitlines() if line.startswith("found ")]
    assert (folder / "toy/steps.py").read_text() == imported
    return {new: (outcome, killer.rpartition("::")[2]) for new, outcome, killer in found}, done.stdout + done.stderr


def changed(old, new):
    (mutant,) = (m for m in mutants_of(STEPS, "toy/steps.py") if (m.old, m.new) == (old, new))
    return mutant


def test_known_mutants_end_as_they_must(tmp_path):
    found, said = ends(tmp_path, [changed(old, new) for old, new, _, _ in KNOWN])
    assert list(found) == [new for _, new, _, _ in KNOWN], said
    for _, new, outcome, killers in KNOWN:
        assert found[new][0] == outcome and found[new][1] in killers.split(" or "), said


def test_unchanged_code_must_pass(tmp_path):
    found, said = ends(tmp_path, [], tests=TESTS.replace("== 5", "== 6"))
    assert not found and "RuntimeError: the unchanged code does not pass its tests" in said and "test_total" in said


def test_code_that_is_not_imported_is_found_out(tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "steps.py").write_text(STEPS)
    with pytest.raises(RuntimeError, match="no function of .*steps.py has line 12"):
        put_in_place(changed("start += value", "start -= value"), tmp_path)


@pytest.mark.parametrize(
    ("code", "mutated"),
    [
        ("x = a < b <= c", {"x = (a <= b <= c)", "x = (a >= b <= c)", "x = (a < b < c)", "x = (a < b > c)"}),
        ("x = a - -2.5", {"x = (a + -2.5)", "x = a - (2.5)", "x = a - -(3.5)"}),
        (
            "x = y if a and not b else True",
            {
                "x = y if (a or not b) else True",
                "x = y if a and (b) else True",
                "x = y if (not (a and (not b))) else True",
                "x = y if a and not b else (False)",
            },
        ),
        ("'Text.'\n    return a", {"'Text.'\n    return None"}),
        ("x: int | None = 1", {"x: int | None = (2)"}),
        ("x = f'{a + 1}'", set()),
        ("raise ValueError('a' + str(3 + 1))", {"pass"}),
        ("warn('word', 3 + 1)", {"pass"}),
        ("x = x * 2", {"x = (x / 2)", "x = x * (3)", "pass"}),
        ("s.x = 'word'", {"s.x = ('word_')", "pass"}),
        ("x = 'two words'", set()),
        ("x = 'ä' * 2", {"x = ('ä_') * 2", "x = 'ä' * (3)", "x = ('ä' / 2)"}),
        ("return super().f(a + 1)", {"return super().f((a - 1))", "return super().f(a + (2))"}),
        ("super().f()", set()),
        ("x = super().f(x)", set()),
        ("x = [a for a in b if f(a)]", {"x = [a for a in b if (not f(a))]"}),
    ],
)
def test_places_that_are_changed(code, mutated):
    head = "LIMIT = 3\n\n@cached(3)\ndef f(a: int | None = 1) -> tuple[3]:\n    "
    assert {m.source.removeprefix(head) for m in mutants_of(head + code, "f.py")} == mutated


def test_a_sample_has_every_file_and_its_share():
    mutants = [Mutant(f"f{i}", line, "", "", "", "", (0, 0)) for i, n in enumerate((200, 100, 2)) for line in range(n)]
    sample = drawn(mutants, 30, seed=0)
    counts = pd.Series([m.file for m in sample]).value_counts()
    assert len(set(sample)) == 30 and counts["f2"] == 1 and abs(counts["f0"] - 20) <= 1
    assert sample == drawn(mutants, 30, seed=0) != drawn(mutants, 30, seed=1)
    assert set(drawn(mutants, None, seed=0)) == set(mutants)


def test_the_summary_counts_what_was_tested():
    outcomes = ["killed"] * 6 + ["timeout", "survived", "no test"]
    table = pd.DataFrame({"file": "f.py", "line": range(9), "kind": "constant", "old": "1", "new": "2"})
    text = summary(table.assign(outcome=outcomes, killed_by="", seconds=1.0))
    assert "7 of 9 killed: 77.8% (45.3% to 93.7%)" in text  # Wilson's interval
    assert text.count("->") == 2
