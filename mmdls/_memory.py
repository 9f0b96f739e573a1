"""Errors that say that memory ran out."""

import torch

__all__ = ["is_out_of_memory"]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says so: torch has an error of its own for devices only, on the processor it says so in words.

    Parameters
    ----------
    error : Exception

    Returns
    -------
    bool

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("sizes of tensors must match"))
    (True, False)
    """
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "not enough memory" in str(error)
        or "can't allocate memory" in str(error)
    )
