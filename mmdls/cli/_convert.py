"""``mmdls convert``: the published checkpoint as a saved model."""

from pathlib import Path

import click

import mmdls
from mmdls.cli._output import claim, force_option, hash_of, write_manifest

__all__ = ["convert"]


@click.command(
    epilog="""\b
    Examples:
      mmdls convert best_model.pt published.mmdls
    """
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--intended-use", help="For whom and for what the model is, for its card.")
@force_option
def convert(checkpoint: Path, model: Path, intended_use: str | None, force: bool) -> None:
    """Save the CHECKPOINT of the published code as MODEL, a folder or a .mmdls file that is safe to load.

    Nothing in the checkpoint is executed. The model predicts labels and risks; it has no survival, since the checkpoint
    holds no baseline hazards.
    """
    claim(model, force)
    mmdls.persistence.convert(checkpoint, model, intended_use=intended_use)
    write_manifest(model, {"checkpoint": hash_of(checkpoint)})
    click.echo(f"{model}: the published model, for `mmdls predict`")
