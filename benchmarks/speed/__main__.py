"""Speed and memory of images, training and losses, measured side by side with other implementations.

``python -m benchmarks.speed`` runs everything (``--quick``: small and in minutes), ``--device cuda`` on a GPU,
``--reference PATH`` also against a clone of the published repository. Every variant of a comparison is a process of its
own. The variants run in turns, so that a slower machine slows all of them. A row gives the median of the ratios of
neighbouring turns and each process's peak memory. The table is written to ``benchmarks/results/speed.md``.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from tqdm.auto import tqdm

from benchmarks.speed._cox import cox_losses
from benchmarks.speed._frozen import frozen_search
from benchmarks.speed._kernels import kernels
from benchmarks.speed._loading import data_loading
from benchmarks.speed._machine import bf16_answers, machine_share
from benchmarks.speed._network import flat_memory, padding, published_network, straight_lines
from benchmarks.speed._report import Report
from benchmarks.speed._runtimes import other_runtimes
from benchmarks.speed._statistics import measure

RESULTS = Path(__file__).parents[1] / "results" / "speed.md"


def statistics_rows(options: argparse.Namespace, say: Report) -> None:
    """Metrics and their intervals."""
    say.tables.append(("Statistics", pd.DataFrame(measure(say.repeats))))


SECTIONS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "network": published_network,
    "kernels": kernels,
    "memory": flat_memory,
    "padding": padding,
    "cox": cox_losses,
    "loading": data_loading,
    "search": frozen_search,
    "lines": straight_lines,
    "share": machine_share,
    "runtimes": other_runtimes,
    "bf16": bf16_answers,
    "statistics": statistics_rows,
}


def main(argv: list[str] | None = None) -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast it is")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--reference", type=Path, help="a clone of the published repository, to run beside")
    parser.add_argument("--repeats", type=int, help="turns of each variant (default: 5; quick: 2)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--compile", action="store_true", help="also with torch.compile")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="some sections only")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file to write")
    options = parser.parse_args(argv)
    options.repeats = options.repeats or (2 if options.quick else 5)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but torch sees no CUDA device")
    if options.reference and not (options.reference / "mm_dls" / "HierMM_DLS.py").is_file():
        parser.error(f"--reference {options.reference}: no mm_dls/HierMM_DLS.py there; give a clone of MM-DLS")
    torch.set_num_threads(options.threads)
    sys.stdout.reconfigure(line_buffering=True)
    report = Report(options)
    for name in tqdm(options.only or SECTIONS, desc="sections", unit="section", file=sys.stderr):
        SECTIONS[name](options, report)
        report.write(options.out)
    print(f"Written to {options.out}.")


if __name__ == "__main__":
    main()
