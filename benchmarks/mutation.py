"""Mutation testing: do the tests notice a wrong sign, bound, number or condition in metrics, losses and heads?

``python -m benchmarks.mutation --sample 250 --out mutants.csv`` collects the tests once. For each mutant it forks a
process, gives the functions of one file the code of the mutant, of which one place is changed, and runs the tests that
execute the changed lines, the fastest first, until one fails. No file is changed. Before that all tests run on the
unchanged code, which also finds out which test executes which line. A mutant that runs into the time limit counts as
killed and is listed apart. ``--again mutants.csv`` tests those anew that survived, after tests were added. Code outside
of functions and defaults of parameters are not changed. Not on Windows, where nothing forks.
"""

import argparse
import ast
import copy
import gc
import inspect
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from tqdm.auto import tqdm

from mmdls._files import whole_file

__all__ = ["Mutant", "drawn", "mutants_of", "put_in_place", "run", "summary"]

ROOT = Path(__file__).parents[1]
FILES = (
    "mmdls/metrics/*.py",
    "mmdls/modules/losses*.py",
    "mmdls/modules/heads.py",
    "mmdls/modules/[cdi]*_*.py",  # competing risks, discrete time, illness and death
    "mmdls/modules/piecewise.py",
    "mmdls/modules/regression.py",
    "mmdls/modules/task_weights.py",
)
TESTS = (
    "tests/test_metrics*.py",
    "tests/test_cox_loss.py",
    "tests/test_*head*.py",
    "tests/test_deephit*.py",
    "tests/test_logistic_hazard.py",
    "tests/test_task*.py",
    "tests/test_weights.py",
    "tests/test_modules.py",
    "tests/test_segmentation.py",
)
SECONDS_OF_TESTS = 20.0  # as many tests of a mutant as take this long together
COLUMNS = ["file", "line", "kind", "old", "new", "outcome", "killed_by", "seconds"]
PASSED, FAILED, FAULT = 0, 1, 99

_OTHER: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}


# -- what is changed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A file with one change.

    Parameters
    ----------
    file : str
        Path within the project.
    line : int
    kind : str
        "comparison", "arithmetic", "boolean", "constant", "condition", "returned value", "removed".
    old, new : str
        The code of the place before and after.
    source : str
        The whole file.
    span : tuple of (int, int)
        First and last line of the statement.
    """

    file: str
    line: int
    kind: str
    old: str
    new: str
    source: str = field(repr=False)
    span: tuple[int, int]

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        """What tells it from the others of the same code."""
        return self.file, self.line, self.kind, self.old, self.new


def mutants_of(source: str, file: str) -> list[Mutant]:
    """All mutants of the bodies of functions of a file, each different text once.

    Docstrings, type hints, decorators, ``__all__``, formatted texts, texts of more than one word, and what ``raise``
    and ``warn`` say stay as they are.
    """
    found: dict[str, Mutant] = {}
    for span, kind, node, new in _changes(ast.parse(source), None):
        text = ast.unparse(new)
        text = f"({text})" if isinstance(node, ast.expr) else text
        mutated = _replaced(source, node, text)
        old = ast.get_source_segment(source, node) or ""
        found.setdefault(mutated, Mutant(file, node.lineno, kind, old, text, mutated, span))
    found.pop(source, None)
    return list(found.values())


def _replaced(source: str, node: ast.expr | ast.stmt, text: str) -> str:
    lines = source.encode().splitlines(keepends=True)  # offsets of ast count bytes
    start = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = b"".join(lines)
    return (whole[:start] + text.encode() + whole[end:]).decode()


def _changes(node: ast.AST, span: tuple[int, int] | None) -> Iterator[tuple]:
    """Span of the statement, kind, place, and what stands there then, of a node and all within it."""
    if isinstance(node, ast.FunctionDef):
        span = span or (node.lineno, node.lineno)
    elif isinstance(node, ast.stmt) and span:
        body = getattr(node, "body", None)
        span = (node.lineno, max(node.lineno, body[0].lineno - 1) if body else node.end_lineno)
    if span:
        for change in _changes_here(node):
            yield span, *change
    for child in _mutable_children(node):
        yield from _changes(child, span)


def _mutable_children(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.JoinedStr() | ast.Raise() | ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
            return
        case ast.Call(func=ast.Name(id="warn") | ast.Attribute(attr="warn")):
            return
        case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return
    left_out = {"annotation", "args", "returns", "decorator_list"} if isinstance(node, ast.stmt) else set()
    for name, value in ast.iter_fields(node):
        if name not in left_out:
            yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, ast.AST))


def _changes_here(node: ast.AST) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    match node:
        case ast.Compare():
            for place, op in enumerate(node.ops):
                for other in _OTHER[type(op)]:
                    ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
                    yield "comparison", node, _with(node, ops=ops)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            yield "arithmetic", node, _with(node, op=_OTHER[type(op)][0]())
        case ast.BoolOp():
            yield "boolean", node, _with(node, op=_OTHER[type(node.op)][0]())
        case ast.UnaryOp(op=ast.Not()):
            yield "boolean", node, node.operand
        case ast.UnaryOp():
            yield "arithmetic", node, node.operand
        case ast.Constant(value=bool(value)):
            yield "constant", node, ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield "constant", node, ast.Constant(value + 1)
        case ast.Constant(value=str(value)) if value and " " not in value:
            yield "constant", node, ast.Constant(value + "_")
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) or _calls_super(value)):
            yield "returned value", node, ast.Return(ast.Constant(None))
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            yield from _negated(test)
        case ast.comprehension(ifs=tests):
            for test in tests:
                yield from _negated(test)
    match node:
        case ast.stmt() if _calls_super(node):
            return
        case ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break() | ast.Expr(value=ast.Call()):
            yield "removed", node, ast.Pass()
        case ast.Assign(targets=[target, *_]) if not _is_new(target, node.value):
            yield "removed", node, ast.Pass()


def _calls_super(node: ast.AST) -> bool:
    """Whether a function without it may lack the hidden variable of super(), and cannot take another's place."""
    return any(isinstance(inner, ast.Name) and inner.id == "super" for inner in ast.walk(node))


def _negated(test: ast.expr) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    if not isinstance(test, ast.Compare | ast.UnaryOp):  # which are negated on their own
        yield "condition", test, ast.UnaryOp(ast.Not(), test)


def _is_new(target: ast.expr, value: ast.expr) -> bool:
    """Whether an assignment makes a name, without which nothing would run."""
    read = {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}
    return isinstance(target, ast.Name | ast.Tuple) and not any(
        isinstance(node, ast.Name) and node.id in read for node in ast.walk(target)
    )


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


# -- how it is tested --------------------------------------------------------------------------------------------------


def run(
    root: Path,
    files: Sequence[str],
    tests: Sequence[str],
    mutants: Sequence[Mutant],
    report: Callable[[Mutant, str, str, float], None],
    seconds: float = SECONDS_OF_TESTS,
    patience: float = 60.0,
) -> None:
    """Test mutants of some files of a project by its tests and by the examples in the docstrings of the files.

    Parameters
    ----------
    root : Path
        Of the project, which must be the working directory.
    files, tests : sequence of str
        Paths within the project.
    mutants : sequence of Mutant
    report : callable
        Called with every mutant, its end ("killed", "timeout", "survived", "no test"), the test that failed, seconds.
    seconds : float
        As many tests of a mutant as take this long together.
    patience : float
        Seconds of the processor that the tests of a mutant may take beyond ten times as long.

    Raises
    ------
    RuntimeError
        If tests do not pass on the unchanged code, or the code of a mutant cannot be put in its place.
    """
    options = ["-q", "-s", "--rootdir=.", "-p", "no:cacheprovider", "-m", "not slow", "--doctest-modules"]
    with tempfile.TemporaryDirectory() as folder:
        loop = _Loop(root, Path(folder), files, mutants, report, seconds, patience)
        code = pytest.main([*options, *tests, *files], plugins=[loop])
    if loop.error or not loop.items:
        raise RuntimeError(loop.error or f"pytest collected nothing (code {code})")


class _Loop:
    """A plugin of pytest that runs the collected tests once for every mutant, each time in a forked process."""

    def __init__(self, root, folder, files, mutants, report, seconds, patience) -> None:
        self.root, self.folder, self.files, self.mutants = root, folder, files, mutants
        self.report, self.seconds, self.patience = report, seconds, patience
        self.items: dict[str, pytest.Item] = {}
        self.error = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.session, self.items = session, {item.nodeid: item for item in session.items}
        try:
            if session.testsfailed:
                raise RuntimeError("the tests cannot be collected")
            self.map()
            for mutant in self.mutants:
                start = time.monotonic()
                self.report(mutant, *self.test(mutant), time.monotonic() - start)
        except RuntimeError as error:
            self.error = str(error)
        return True

    def map(self) -> None:
        """Find out how long every test takes and, by coverage, which lines it executes."""
        code, said = self._apart(self._mapping, 7200)
        if code != PASSED:
            raise RuntimeError(f"the unchanged code does not pass its tests (code {code}):\n{said}")
        found = json.loads((self.folder / "map.json").read_text())
        self.seconds_of, self.tests_of_line = found["seconds"], found["lines"]

    def test(self, mutant: Mutant) -> tuple[str, str]:
        """How a mutant ends, and which test killed it."""
        tests = self._tests_of(mutant)
        if not tests:
            return "no test", ""
        limit = int(self.patience + 10 * sum(self.seconds_of[test] for test in tests))
        code, said = self._apart(lambda: self._testing(mutant, tests), limit)
        if code == FAULT:
            raise RuntimeError(f"{mutant} was not tested:\n{said}")
        outcome = {PASSED: "survived", None: "timeout"}.get(code, "killed")
        return outcome, said.rpartition("killed by ")[2].strip() if code == FAILED else ""

    def _tests_of(self, mutant: Mutant) -> list[str]:
        first, last = mutant.span
        lines = self.tests_of_line[mutant.file]
        tests = {test for line in range(first, last + 1) for test in lines.get(str(line), ())}
        fastest = sorted(tests, key=self.seconds_of.__getitem__)
        until = np.cumsum([self.seconds_of[test] for test in fastest])
        return fastest[: max(1, int(np.searchsorted(until, self.seconds)))]

    def _mapping(self) -> int:
        measured = coverage.Coverage(
            data_file=None, config_file=False, include=[str(self.root / f) for f in self.files]
        )
        recorder = _Recorder(measured)
        self.session.config.pluginmanager.register(recorder)
        measured.start()
        failed = self._run(self.items, first_failure=False)
        measured.stop()
        print(f"the first that failed: {failed}" if failed else "")
        data = measured.get_data()
        lines = {}
        for file in self.files:
            by_line = data.contexts_by_lineno(str(self.root / file))
            lines[file] = {line: sorted(recorder.tests_of(contexts)) for line, contexts in by_line.items()}
        with whole_file(self.folder / "map.json") as partial:
            partial.write_text(json.dumps({"seconds": recorder.seconds, "lines": lines}))
        return FAILED if failed else PASSED

    def _testing(self, mutant: Mutant, tests: list[str]) -> int:
        put_in_place(mutant, self.root)
        failed = self._run(tests)
        print(f"killed by {failed}")
        return FAILED if failed else PASSED

    def _run(self, tests: Iterable[str], first_failure: bool = True) -> str:
        """The first test that fails, if any."""
        items, failed = [self.items[test] for test in tests], ""
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            failed = failed or (item.nodeid if self.session.testsfailed else "")
            if failed and first_failure:
                break
        return failed

    def _apart(self, work: Callable[[], int], limit: int) -> tuple[int | None, str]:
        """The exit code of work in a forked process, None if it takes too long, and the end of what it printed.

        The limit is in seconds of the processor, since the machine may be busy; who only waits has a hundred times it.
        """
        log = self.folder / "log"
        child = os.fork()
        if child == 0:
            code = FAULT
            with log.open("w") as file:
                try:
                    os.setsid()
                    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
                    sys.stdout = sys.stderr = file
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                    code = work()
                except BaseException:
                    traceback.print_exc(file=file)
            os._exit(code)
        end = time.monotonic() + 100 * limit
        done, status = 0, 0
        try:
            while not done and time.monotonic() < end:
                time.sleep(0.02)
                done, status = os.waitpid(child, os.WNOHANG)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # also what the tests have started
        if not done:
            os.waitpid(child, 0)
        said = log.read_text(errors="replace")[-4000:] if log.exists() else ""
        code = os.waitstatus_to_exitcode(status) if done else -signal.SIGXCPU
        return (None if code == -signal.SIGXCPU else code), said


def put_in_place(mutant: Mutant, root: Path) -> None:
    """Give the functions of a file that this process has imported the code of a mutant.

    Raises
    ------
    RuntimeError
        If the changed code reaches no function.
    """
    path = str(root / mutant.file)
    old, new = (_functions(compile(text, path, "exec")) for text in (Path(path).read_text("utf-8"), mutant.source))
    names = [code.co_qualname for code in old]
    if names != [code.co_qualname for code in new]:
        raise RuntimeError(f"{mutant} has other functions")
    changed = {
        (before.co_qualname, before.co_firstlineno): after
        for before, after in zip(old, new, strict=True)
        if before.co_firstlineno <= mutant.line <= max(line for *_, line in before.co_lines() if line)
    }
    done = 0
    for function in [each for each in gc.get_objects() if type(each) is FunctionType]:
        code = function.__code__
        after = changed.get((code.co_qualname, code.co_firstlineno)) if code.co_filename == path else None
        if after is not None:
            function.__code__ = after
            done += 1
    if not done:
        raise RuntimeError(f"no function of {path} has line {mutant.line}: other code was imported, or none")


def _functions(code: CodeType) -> list[CodeType]:
    """The functions of a module and its classes, without those within functions."""
    found = []
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            found += [inner] if inner.co_flags & inspect.CO_OPTIMIZED else _functions(inner)
    return found


class _Recorder:
    """Notes how long tests take and, through coverage, what they execute; what is set up belongs to all of a file."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured, self.seconds = measured, {}

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self.measured.switch_context(item.nodeid.partition("::")[0])

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self.measured.switch_context(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome != "skipped":
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    def tests_of(self, contexts: list[str]) -> set[str]:
        files = {context for context in contexts if context and "::" not in context}
        return {test for test in self.seconds if test in contexts or test.partition("::")[0] in files}


# -- the sample --------------------------------------------------------------------------------------------------------


def drawn(mutants: Sequence[Mutant], n: int | None, seed: int) -> list[Mutant]:
    """A random sample with every file's share, at least one of each; all if ``n`` is None. In random order."""
    rng = np.random.default_rng(seed)
    order = [mutants[i] for i in rng.permutation(len(mutants))]
    if n is None or n >= len(order):
        return order
    # A file's mutants stand in equal distances on a line, so that a piece of it has its share of every file.
    number = pd.Series(1, index=[m.file for m in order]).groupby(level=0).cumsum().to_numpy()
    share = number / pd.Series([m.file for m in order]).value_counts()[[m.file for m in order]].to_numpy()
    first = number == 1
    chosen = np.lexsort((share, ~first))[:n]
    return [order[i] for i in sorted(chosen)]


def summary(table: pd.DataFrame) -> str:
    """Counts by file, the killed share with its interval, and the survivors."""
    by_file = pd.crosstab(table["file"], table["outcome"])
    killed = int(table["outcome"].isin(["killed", "timeout"]).sum())
    interval = binomtest(killed, len(table)).proportion_ci(method="wilson")
    left = table[~table["outcome"].isin(["killed", "timeout"])].sort_values(["file", "line"])
    lines = [f"{row.file}:{row.line}: {row.kind}: {row.old}  ->  {row.new}" for row in left.itertuples()]
    share = f"{killed} of {len(table)} killed: {killed / len(table):.1%} ({interval.low:.1%} to {interval.high:.1%})"
    return "\n".join([by_file.to_string(), share, *lines])


def main(argv: list[str] | None = None) -> None:
    """Write one row a mutant, and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutation", description=__doc__.partition("\n")[0])
    parser.add_argument("--sample", type=int, default=None, help="how many mutants; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--files", nargs="+", default=FILES, help="patterns of files to mutate")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="patterns of tests to choose from")
    parser.add_argument("--again", type=Path, default=None, help="a CSV file, whose survivors are tested")
    parser.add_argument("--out", type=Path, required=True, help="a CSV file for the rows")
    options = parser.parse_args(argv)
    files, tests = (
        sorted({str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)})
        for patterns in (options.files, options.tests)
    )
    mutants = [mutant for file in files for mutant in mutants_of((ROOT / file).read_text(encoding="utf-8"), file)]
    if options.again is not None:
        left = pd.read_csv(options.again, keep_default_na=False).query("outcome in ['survived', 'no test']")
        keys = set(left[["file", "line", "kind", "old", "new"]].itertuples(index=False, name=None))
        mutants = [mutant for mutant in mutants if mutant.key in keys]
    sample = drawn(mutants, options.sample, options.seed)
    rows: list[tuple] = []
    with tqdm(total=len(sample), unit="mutant") as bar:

        def write(mutant: Mutant, outcome: str, killer: str, seconds: float) -> None:
            rows.append((*mutant.key, outcome, killer, round(seconds, 1)))
            with whole_file(options.out) as partial:
                pd.DataFrame(rows, columns=COLUMNS).to_csv(partial, index=False)
            bar.update()

        os.chdir(ROOT)
        run(ROOT, files, tests, sample, write)
    print(f"{len(sample)} of {len(mutants)} mutants in {len(files)} files")
    print(summary(pd.DataFrame(rows, columns=COLUMNS)))


if __name__ == "__main__":
    main()
