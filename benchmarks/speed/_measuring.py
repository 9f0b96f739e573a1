"""Variants of a job, measured in processes of their own that run in turns."""

import multiprocessing
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

Step = Callable[[], Any]


@dataclass(frozen=True)
class Variant:
    """One way to do a job: ``prepare(device=..., **settings)`` returns the step that is timed.

    The result of the step's first call is compared between variants. A step of microseconds is called ``calls`` times
    in a turn and its mean is taken: one call alone would be timed with cold caches and whatever else the machine does.
    """

    prepare: Callable[..., Step]
    settings: Mapping[str, Any] = field(default_factory=dict)
    calls: int = 1


@dataclass(frozen=True)
class Measured:
    """Measurements of a variant: seconds of every repeat, peak memory (MB) of its process, the part of it that the
    steps added, and the result of the first call.
    """

    seconds: list[float]
    peak: float
    added: float
    answer: Any

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)


def measure(variants: Mapping[str, Variant], repeats: int, device: str, threads: int) -> dict[str, Measured]:
    """Run variants side by side: each in its own process, one step of each in turn, without counting the first turn."""
    context = multiprocessing.get_context("spawn")
    workers = {}
    try:
        for name, variant in variants.items():
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, variant, device, threads), daemon=True)
            process.start()
            there.close()
            workers[name] = process, here
        for _, here in workers.values():
            here.recv()
        answers = {name: _ask(here, "answer") for name, (_, here) in workers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(repeats):
            for name, (_, here) in workers.items():
                seconds[name].append(_ask(here, "time"))
        memory = {name: _ask(here, "memory") for name, (_, here) in workers.items()}
    finally:
        for process, here in workers.values():
            here.close()
            process.join(timeout=10)
    return {name: Measured(seconds[name], *memory[name], answers[name]) for name in variants}


def _ask(connection: Any, question: str) -> Any:
    connection.send(question)
    return connection.recv()


def _serve(connection: Any, variant: Variant, device: str, threads: int) -> None:
    """The worker's side."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    step = variant.prepare(device=device, **variant.settings)
    before = _resident(reset=True, device=device)
    connection.send("ready")
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        if question == "memory":
            peak = _peak(device)
            connection.send((peak, peak - before))
            continue
        if question == "answer":
            connection.send(step())
            continue
        start = time.perf_counter()
        for _ in range(variant.calls):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        connection.send((time.perf_counter() - start) / variant.calls)


def _resident(*, reset: bool, device: str) -> float:
    """Memory in use now, MB; the peak is counted from here on where the system allows it."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 1e6
    if not Path("/proc/self/status").exists():
        return _peak(device)
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return _proc_status("VmRSS")


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    if Path("/proc/self/status").exists():
        # Unlike getrusage, this does not count what the parent held when it started this process.
        return _proc_status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _proc_status(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024 / 1e6


@dataclass(frozen=True)
class Row:
    """A line of the table: one job, two variants, their ratio."""

    section: str
    job: str
    ours: str
    other: str
    found: Mapping[str, Measured]
    goal: str = ""
    reached: bool | None = None
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times faster ours was, turn by turn."""
        pairs = zip(self.found[self.other].seconds, self.found[self.ours].seconds, strict=True)
        return [other / ours for other, ours in pairs]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    def cells(self) -> list[str]:
        """The line as text."""
        ours, other = self.found[self.ours], self.found[self.other]
        reached = "" if self.reached is None else " yes" if self.reached else " **no**"
        return [
            self.section,
            self.job,
            f"{self.ours} / {self.other}",
            f"{seconds_text(ours.median)} / {seconds_text(other.median)}",
            f"{self.ratio:.2f} ({min(self.ratios):.2f}-{max(self.ratios):.2f})",
            self.goal + reached,
            f"{ours.peak:,.0f} / {other.peak:,.0f}",
            self.note,
        ]


HEADER = [
    "",
    "job",
    "ours / compared with",
    "seconds",
    "times faster (range)",
    "wanted: reached",
    "peak MB",
    "answers",
]


def seconds_text(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-3 else f"{value * 1e6:.0f} us"


def compared(
    section: str, job: str, ours: str, other: str, found: Mapping[str, Measured], least: float | None = None, note=""
) -> Row:
    """A row with a goal for the least ratio."""
    row = Row(section, job, ours, other, found, note=note)
    if least is None:
        return row
    return Row(section, job, ours, other, found, f">= {least:g}", row.ratio >= least, note)


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> str:
    """The relative difference of two results: norm of the difference over norm of the result, over all arrays."""
    apart, size = (
        np.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in parts))
        for parts in ([a[name] - b[name] for name in b], b.values())
    )
    return f"equal to {apart / size:.0e}" if apart else "equal"
