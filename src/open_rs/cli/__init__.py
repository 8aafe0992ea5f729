"""`open-rs`: one command whose subcommands are loaded only when they run."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from open_rs.types import UserError

# name -> one line for `open-rs --help`; the command itself is `open_rs.cli.<name>:command`
COMMANDS = {
    "demo": "Take the embedded model from wrong to right on this machine, in six minutes.",
    "train": "Train a model with a recipe: reinforcement learning with verifiable rewards.",
    "evaluate": "Measure a model on benchmarks, with intervals.",
    "compare": "Compare evaluations: paired differences, intervals, p values.",
    "curate": "Make a training set from a pool, with a reason for each row dropped.",
    "check": "Check a recipe, and say what it will cost, before money is spent.",
    "recipes": "List the recipes that ship with the package.",
    "translate": "Translate a TRL, open-r1 or open-rs recipe, with a line for every key.",
    "grade": "Grade completions from a file.",
    "audit": "Find golds that fail to grade themselves.",
    "published": "Print the paper's tables and later re-evaluations.",
    "report": "Write a self-contained HTML report of runs.",
    "release": "Prepare a model or data set for the Hub, and push it with --push.",
    "sources": "List known training sets and benchmarks.",
}


class LazyGroup(click.Group):
    """A group that imports a subcommand's module only when that subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return import_module(f"open_rs.cli.{cmd_name}").command if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UserError(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def unknown(what: str, name: str, known: object) -> str:
    """One sentence for a name that is not known, with the nearest that is."""
    from difflib import get_close_matches

    names = list(known)  # pyright: ignore[reportArgumentType, reportCallIssue]
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(names)}"
    return f"{name}: no such {what}; {hint}"


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="open-rs", prog_name="open-rs")
def group() -> None:
    """Raise the reasoning of a small language model on a small budget, and prove it.

    \b
    Start here:  open-rs demo
    Then:        open-rs check open-rs3      what a run will do and cost
                 open-rs train open-rs3      train it
                 open-rs evaluate runs/open-rs3 --benchmarks aime24,amc23 --samples 8
    """


def main() -> None:
    """Run the command; a UserError ends in one sentence and exit code 2, an interrupt in exit code 130."""
    try:
        sys.exit(group.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except UserError as error:
        click.echo(f"open-rs: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("open-rs: interrupted; what was finished is saved", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
