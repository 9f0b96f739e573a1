"""What commands write: files that are not overwritten unasked, the manifest of a run, tables in a terminal."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmdls._files import whole_file
from mmdls._secrets import without_formulas, without_secrets
from mmdls.cli._commands import Failed

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "anonymous_option",
    "claim",
    "force_option",
    "hash_of",
    "numbered",
    "quiet_option",
    "show_table",
    "write_manifest",
    "write_table",
]

force_option = click.option("--force", is_flag=True, help="Replace what is there already.")
anonymous_option = click.option(
    "--anonymous", is_flag=True, help="No file names a patient: rows have numbers, in the order of DATA."
)
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No progress bar.")


def claim(path: Path, force: bool) -> None:
    """Refuse a name that is taken, before anything is computed.

    Raises
    ------
    Failed
        If there is something, and ``force`` is False, or if the folder around it does not exist.
    """
    if not path.absolute().parent.is_dir():
        raise Failed(f"{str(path)!r} cannot be written: there is no folder {str(path.parent)!r}.")
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not force:
        raise Failed(f"{str(path)!r} exists; pass --force to replace it, or choose another name.")


def write_manifest(path: Path, inputs: Mapping[str, Any], **more: Any) -> None:
    """Write beside an output how it was made, as ``<output>.run.json``.

    Versions, options and hashes of the inputs are in it; paths, which may hold names of patients, are not, nor are
    passwords.

    Parameters
    ----------
    path : Path
        The output.
    inputs : mapping of str to object
        Hashes of what was read, by what it is.
    **more
        What else a command wants to say.
    """
    from mmdls._versions import versions

    context = click.get_current_context()
    paths = {one.name for one in context.command.params if isinstance(one.type, click.Path)}
    content = {
        "command": context.command.name,
        "options": {name: value for name, value in context.params.items() if name not in paths},
        "inputs": inputs,
        "versions": dict(versions()),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **more,
    }
    with whole_file(path.with_name(f"{path.name}.run.json")) as partial:
        partial.write_text(without_secrets(json.dumps(content, indent=1, default=str)) + "\n", encoding="utf-8")


def hash_of(path: Path) -> str:
    """SHA-256 of a file; of a saved model that is a folder, of the list of the checksums of its files."""
    with (path / "SHA256SUMS" if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_table(table: "pd.DataFrame", path: Path, **options: Any) -> None:
    """Write a table as CSV, whole or not at all; no text in it is a formula."""
    with whole_file(path) as partial:
        without_formulas(table).to_csv(partial, **options)


def numbered(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table of patients whose rows have numbers, from 1, in place of their ids."""
    import pandas as pd

    return table.set_axis(pd.RangeIndex(1, len(table) + 1, name="row"))


def show_table(table: "pd.DataFrame", index: bool = True) -> None:
    """Print a table, texts to the left."""
    frame = table.reset_index() if index else table
    cells = frame.astype(object).map(lambda cell: f"{cell:.3g}" if isinstance(cell, float) else str(cell))
    cells = cells.where(frame.notna(), "")
    widths = [max(len(str(name)), *cells[name].map(len)) if len(cells) else len(str(name)) for name in cells]
    for row in [list(map(str, cells.columns)), *cells.to_numpy().tolist()]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
