"""Which way convolutions are computed: by compiled kernels, by NNPACK, or as usual."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["Info", "info", "library", "ordinary", "using"]

# From the best one. The instruction set that each needs, as torch names it, includes those after it.
_COMPILED = {"avx512": "AVX512", "avx2": "AVX2"}
_WAYS = (*_COMPILED, "nnpack", "plain")
# Taken without being asked for. NNPACK's rounding errors are up to 20 times those of the usual convolution.
_DEFAULTS = (*_COMPILED, "plain")
_VARIABLE = "MMDLS_KERNELS"
_chosen: ContextVar[str | None] = ContextVar("chosen", default=None)


@dataclass(frozen=True)
class Info:
    """Which way convolutions are computed, and why.

    Parameters
    ----------
    way : {"avx512", "avx2", "nnpack", "plain"}
    why : str

    Examples
    --------
    >>> from mmdls.kernels import Info
    >>> print(Info("plain", "no C++ compiler was found."))
    plain: no C++ compiler was found.
    """

    way: str
    why: str

    def __str__(self) -> str:
        return f"{self.way}: {self.why}"


def info() -> Info:
    """Which way convolutions of 3 x 3 are computed, and why.

    Returns
    -------
    Info
        With ``way`` (``"avx512"`` and ``"avx2"`` are compiled kernels for processors with these instructions,
        ``"nnpack"`` is torch's own library, ``"plain"`` the usual convolution) and ``why``.

    Raises
    ------
    ValueError
        If the environment variable ``MMDLS_KERNELS`` names no way, or one that does not work here.

    Examples
    --------
    >>> from mmdls.kernels import info
    >>> info().way in ("avx512", "avx2", "nnpack", "plain")
    True
    """
    chosen = _chosen.get()
    if chosen is not None:
        return Info(chosen, "chosen by mmdls.kernels.using.")
    return _default(os.environ.get(_VARIABLE, ""))


@contextmanager
def using(way: str) -> Iterator[None]:
    """Compute convolutions in a certain way inside a ``with`` block, in this thread.

    Parameters
    ----------
    way : {"avx512", "avx2", "nnpack", "plain"}

    Raises
    ------
    ValueError
        If there is no such way, or it does not work here.

    Examples
    --------
    >>> from mmdls.kernels import info, using
    >>> with using("plain"):
    ...     print(info())
    plain: chosen by mmdls.kernels.using.
    """
    hindrance = _hindrance(way)
    if hindrance:
        raise ValueError(hindrance)
    token = _chosen.set(way)
    try:
        yield
    finally:
        _chosen.reset(token)


@cache
def _default(wanted: str) -> Info:
    if wanted:
        hindrance = _hindrance(wanted)
        if hindrance:
            raise ValueError(f"the environment variable {_VARIABLE}: {hindrance}")
        return Info(wanted, f"chosen by the environment variable {_VARIABLE}.")
    hindrances: list[str] = []
    for name in _DEFAULTS:
        hindrance = _hindrance(name)
        if not hindrance:
            return Info(name, " ".join(["the best way that works here.", *hindrances]))
        hindrances.append(hindrance)
    raise AssertionError("the usual convolution always works.")


@cache
def _hindrance(name: str) -> str:
    """Why a way does not work here; empty if it does."""
    if name in _COMPILED:
        known = torch.backends.cpu.get_cpu_capability()
        if known not in list(_COMPILED.values())[: list(_COMPILED).index(name) + 1]:
            return f"{name!r} needs a processor with {_COMPILED[name]}; torch sees {known}."
        if not _path(name).exists():
            return (
                f"{name!r} was not compiled when mmdls was installed; it needs a C++ compiler (for example g++): "
                "install one, then mmdls again."
            )
        return _loading_error(name)
    if name == "nnpack":
        return "" if torch.backends.nnpack.is_available() else "'nnpack' is not part of this torch."
    return "" if name == "plain" else f"a way of computing convolutions must be one of {_WAYS}; got {name!r}."


def _path(name: str) -> Path:
    return Path(__file__).parent / f"conv3x3_{name}.so"


def _loading_error(name: str) -> str:
    try:
        library(name)
    except (OSError, AttributeError) as error:
        return f"{name!r} cannot be loaded: {error}"
    return ""


@cache
def library(name: str) -> ctypes.CDLL:
    """The compiled functions for one instruction set."""
    loaded = ctypes.CDLL(str(_path(name)))
    numbers, size, whole = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    image: Any = [numbers, size, whole, whole]
    filters: Any = [numbers, numbers]
    layers: Any = [*filters, numbers] * 2
    loaded.mmdls_mask_bytes.argtypes = [whole]
    loaded.mmdls_conv3x3.argtypes = [*image, whole, whole, *filters, whole, numbers, whole, numbers, whole]
    loaded.mmdls_conv3x3_gradient.argtypes = [numbers, *image, whole, whole, *filters, numbers, whole]
    loaded.mmdls_pair_sum.argtypes = [*image, whole, whole, whole, *layers, numbers, numbers, whole]
    inputs: Any = [*image, whole, whole, whole, *layers[:-1]]
    loaded.mmdls_pair_sum_gradient.argtypes = [*inputs, *[numbers] * 6, whole]
    maps: Any = [numbers, size, size, whole, whole, numbers]
    loaded.mmdls_group_norm.argtypes = [*maps, numbers, ctypes.c_double, numbers, whole, numbers, numbers, whole]
    loaded.mmdls_group_norm_gradient.argtypes = [*maps, *[numbers] * 7, whole]
    maps = [*image, whole, whole, numbers]
    loaded.mmdls_pooled_norm.argtypes = [*maps, numbers, ctypes.c_double, numbers, numbers, numbers, whole]
    loaded.mmdls_pooled_norm_gradient.argtypes = [*maps, *[numbers] * 6, whole]
    network: Any = [numbers, size, *[whole] * 4, numbers, numbers]
    loaded.mmdls_antialiased.argtypes = [*network, ctypes.c_double, *[numbers] * 4, whole]
    loaded.mmdls_antialiased_gradient.argtypes = [*network, *[numbers] * 5, whole]
    threads = _threads_of_torch()
    if threads:
        loaded.mmdls_use_threads.argtypes = [numbers] * 3
        loaded.mmdls_use_threads(*threads)
    return loaded


# A process that was forked has none of the threads of its parent, and OpenMP waits for them.
_is_forked = False


def _note_fork() -> None:
    global _is_forked  # noqa: PLW0603 - a fact of the process
    _is_forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def _threads_of_torch() -> list[int] | None:
    """Addresses of functions of the OpenMP library of GNU that torch has loaded; None where it uses another one."""
    try:
        maps = "" if _is_forked else Path("/proc/self/maps").read_text()
    except OSError:
        return None
    loaded = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "libgomp" in line}
    # Other packages, such as scikit-learn, bring a copy of their own.
    found = [path for path in loaded if Path(path).is_relative_to(Path(torch.__file__).parent)] or list(loaded)
    if len(found) != 1 or any(name in maps for name in ("libiomp", "libomp.")):
        return None
    try:
        openmp = ctypes.CDLL(found.pop())
        functions = openmp.GOMP_parallel, openmp.omp_get_thread_num, openmp.omp_get_num_threads
    except (OSError, AttributeError):
        return None
    return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]


def ordinary(*tensors: Tensor | None) -> bool:
    """Whether kernels can read tensors: in single precision on the processor, and neither compiled nor transformed."""
    given = [tensor for tensor in tensors if tensor is not None]
    return (
        all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in given)
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in given)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not any(torch._C._functorch.is_functorch_wrapped_tensor(tensor) for tensor in given)
    )
