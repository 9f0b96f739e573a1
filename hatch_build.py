"""Compiles the kernels when mmdls is built or installed; without a C++ compiler they are left out."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("mmdls", "kernels")
SOURCE = Path("native", "conv3x3.cpp")
# What each library may use: the instructions that torch, too, asks for under that name.
SETS = {
    "avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"],
    "avx2": ["-mavx2", "-mfma"],
}
# Not -ffast-math: NaN and infinities have to come out as they are.
OPTIONS = ["-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]


class CustomBuildHook(BuildHookInterface):
    """One library for each instruction set, beside the Python files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the package is put together."""
        folder = Path(self.root) / FOLDER
        for library in folder.glob("*.so"):
            library.unlink()
        compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if compiler is None or os.name != "posix" or platform.machine().lower() not in ("x86_64", "amd64"):
            print("mmdls: no kernels are compiled here; usual convolutions take their place.", file=sys.stderr)
            return
        for name, instructions in SETS.items():
            self._compile(compiler, instructions, folder / SOURCE, folder / f"conv3x3_{name}.so")
        if any(folder.glob("*.so")):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    @staticmethod
    def _compile(compiler: str, instructions: list[str], source: Path, target: Path) -> None:
        command = [*compiler.split(), *OPTIONS, *instructions, "-Wno-psabi", str(source), "-o", str(target), "-pthread"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or error
            print(f"mmdls: {target.name} was not compiled: {reason}", file=sys.stderr)
            target.unlink(missing_ok=True)
