"""``mmdls zoo`` and ``mmdls check-plugin``: what is registered, and whether a part keeps its contract."""

import traceback
from fnmatch import fnmatchcase

import click

import mmdls
from mmdls._hints import did_you_mean
from mmdls.cli._commands import FINDINGS, Failed
from mmdls.cli._output import show_table

__all__ = ["check_plugin", "zoo"]

# What a part raises that does not do what its contract asks for; a package that is not installed is no such thing.
_BROKEN = (AssertionError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@click.command(
    epilog="""\b
    Examples:
      mmdls zoo
      mmdls zoo --task survival --input radiomics
      mmdls zoo backbones
      mmdls zoo all
    """
)
@click.argument("kind", default="models")
@click.option("--pattern", default="*", show_default=True, help="Of names, with * and ?.")
@click.option("--task", help="Only models that answer this kind of task, such as survival.")
@click.option("--input", "read", help="Only models that read this input: clinical, pet, radiomics, lesion, tables ...")
@click.option("--csv", is_flag=True, help="Print a table for other programs.")
def zoo(kind: str, pattern: str, task: str | None, read: str | None, csv: bool) -> None:
    """List the models, or the parts of another KIND: backbones, fusions, poolings, encoders ...; or all."""
    kinds = _kinds()
    if kind not in (*kinds, "all"):
        raise click.BadParameter(f"{kind!r} is none of {', '.join(kinds)}, all.", param_hint="KIND")
    if kind != "models" and (task or read):
        raise click.UsageError("--task and --input choose among models.")
    for name in kinds if kind == "all" else [kind]:
        if name == "models":
            table = mmdls.list_models(pattern, task=task, input=read)
        else:
            table = kinds[name].table()
            table = table.loc[[one for one in table.index if fnmatchcase(one, pattern)]]
        if csv:
            click.echo(table.assign(kind=name).to_csv(), nl=False)
            continue
        if kind == "all":
            click.echo(f"\n{name}")
        show_table(table)


@click.command(
    "check-plugin",
    epilog="""\b
    Examples:
      mmdls check-plugin gated
      mmdls --import my_package.backbones check-plugin my_backbone --kind backbones
    """,
)
@click.argument("name")
@click.option("--kind", help="The registry, if the name stands in several and one shall be checked.")
@click.pass_context
def check_plugin(ctx: click.Context, name: str, kind: str | None) -> None:
    """Run the contract tests of a registered part, of whatever kind.

    The exit code is 3 if a contract is broken; the message says what was expected.
    """
    kinds = _kinds()
    if kind is not None and kind not in kinds:
        raise click.BadParameter(f"{kind!r} is none of {', '.join(kinds)}.", param_hint="--kind")
    holding = [one for one in ([kind] if kind else kinds) if name in kinds[one]]
    if not holding:
        offered = kinds[kind] if kind else sorted({known for registry in kinds.values() for known in registry})
        hint = did_you_mean(name, offered, cutoff=0.7)
        raise Failed(f"no part is called {name!r}.{hint} `mmdls zoo all` lists them; --import loads a module first.")
    broken = 0
    for one in holding:
        click.echo(f"{one} {name}: being checked ...", err=True)  # large networks take a minute
        try:
            mmdls.testing.check_part(one, name)
        except _BROKEN as error:  # the other kinds are checked all the same
            broken += 1
            if ctx.find_root().meta.get("debug"):
                click.echo(traceback.format_exc(), err=True)
            what = f"{error}" if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            click.echo(f"{one} {name}: broken. {what}")
        else:
            click.echo(f"{one} {name}: keeps its contract")
    ctx.exit(FINDINGS if broken else 0)


def _kinds() -> dict[str, "mmdls.registry.Registry"]:
    """Every registry by its kind, models first."""
    found = {one.kind: one for one in vars(mmdls.registry).values() if isinstance(one, mmdls.registry.Registry)}
    return {"models": found.pop("models"), **found}
