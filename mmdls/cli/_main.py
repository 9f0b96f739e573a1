"""The command ``mmdls`` and its subcommands."""

import click

import mmdls
from mmdls.cli import _check, _convert, _demo, _evaluate, _fit, _predict, _prepare, _simulate, _zoo
from mmdls.cli._commands import Commands, import_modules

__all__ = ["main"]


@click.group(
    "mmdls",
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
    From scans to a report:
      mmdls simulate scans --scans --patients 12
      mmdls prepare scans/table.csv cohort --lesion-label lesion --lung-label lung-left --lung-label lung-right
      mmdls fit cohort model.mmdls

    \b
    Exit codes: 0 done; 1 something is wrong with what was given; 2 wrong usage; 3 done, and something was found
    (check: a leak; check-plugin: a broken contract; prepare: patients who are not complete); 4 a fault of mmdls;
    130 stopped.
    """,
)
@click.version_option(mmdls.__version__, prog_name="mmdls")
@click.option("--debug", is_flag=True, is_eager=True, expose_value=False, hidden=True,
              callback=lambda ctx, _, value: ctx.meta.update(debug=value))  # fmt: skip
@click.option("--import", "imports", metavar="MODULE", multiple=True, expose_value=False, callback=import_modules,
              help="Import a module first, for the parts that it registers; may be repeated.")  # fmt: skip
def main() -> None:
    """Diagnosis and prognosis from CT, PET, radiomics and clinical data.

    `mmdls COMMAND --help` shows the options of a command, with examples.
    """


for _command in (
    _prepare.prepare,
    _check.check,
    _fit.fit,
    _predict.predict,
    _evaluate.evaluate,
    _evaluate.report,
    _evaluate.compare,
    _zoo.zoo,
    _zoo.check_plugin,
    _convert.convert,
    _simulate.simulate,
    _demo.demo,
):
    main.add_command(_command)
