"""The table that a run writes."""

import argparse
import platform
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.speed._measuring import HEADER, Measured, Row, Variant, measure
from mmdls._files import whole_file


class Report:
    """Collects rows and lines, prints each at once, and writes all of them after every section."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.repeats = options, options.repeats
        self.rows: list[Row] = []
        self.lines: list[str] = []
        self.tables: list[tuple[str, pd.DataFrame]] = []

    def measure(
        self, variants: Mapping[str, Variant], repeats: int | None = None, threads: int | None = None
    ) -> dict[str, Measured]:
        """See :func:`measure`."""
        return measure(variants, repeats or self.repeats, self.options.device, threads or self.options.threads)

    def row(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        tqdm.write(" | ".join(row.cells()))

    def line(self, text: str) -> None:
        """Add a sentence."""
        self.lines.append(text)
        tqdm.write(text)

    def write(self, path: Path) -> None:
        """Write everything so far."""
        options = self.options
        machine = f"{_processor()}, {options.threads} threads"
        if options.device == "cuda":
            machine += f", {torch.cuda.get_device_name()}"
        versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
        gpu = "" if options.device == "cuda" else " GPU: not run on a GPU; `--device cuda` measures the same there."
        parts = [
            "# Speed and memory",
            "",
            f"Machine: {machine}; {versions}; {platform.system()}. {self.repeats} repeats"
            f"{', quick sizes: not for comparison' if options.quick else ''}.{gpu}",
            f"Again: `python -m benchmarks.speed{' --quick' if options.quick else ''}"
            f"{' --reference PATH' if options.reference else ''}`.",
            "",
            "Both variants of a row ran in processes of their own, in turns; the ratio is the median over turns, with "
            "the range in brackets. Peak memory is that of the whole process, Python and torch included. "
            "`docs/speed.md` explains what each row measures.",
            "",
            *_markdown(HEADER, [row.cells() for row in self.rows]),
            "",
            *(f"- {line}" for line in self.lines),
        ]
        for title, table in self.tables:
            cells = [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in table.to_numpy().tolist()]
            parts += ["", f"## {title}", "", *_markdown([str(c) for c in table.columns], cells)]
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text("\n".join(parts) + "\n")


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        facts = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in facts.items()}
        return named.get("model name", platform.machine())
    return platform.processor() or platform.machine()
