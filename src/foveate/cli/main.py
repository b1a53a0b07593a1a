"""The `foveate` command. Each subcommand's module is imported only when it runs, so that `--help` costs no torch, pydantic or YAML."""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Sequence

import click

from foveate import __version__, startup
from foveate.errors import FoveateError, RecipeError

# name -> (module with `command`, its one-line help). The help stands here so that the list needs no imports.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("foveate.cli.init", "Look at data and write a recipe for it."),
    "train": ("foveate.cli.train", "Fine-tune a model as a recipe says."),
    "eval": ("foveate.cli.eval", "Measure a model on a recipe's held-out data."),
    "export": ("foveate.cli.export", "Write a run's model as a Hugging Face folder, merged and proven equal."),
    "check": ("foveate.cli.check", "Check a recipe, its data and its labels before any training."),
    "plan": ("foveate.cli.plan", "Predict memory, time and price on machines that need not be at hand."),
    "rehearse": ("foveate.cli.rehearse", "Run the whole recipe on a tiny model of its family, on a CPU, in a minute."),
    "preview": ("foveate.cli.preview", "Write a page that shows samples as the model gets them."),
    "convert": ("foveate.cli.convert", "Write data as Parquet or WebDataset shards, media inside, for clusters."),
    "migrate": ("foveate.cli.migrate", "Turn a NeMo Automodel or LLaMA-Factory recipe into a recipe."),
    "schema": ("foveate.cli.schema", "Print the recipe's JSON Schema, for editors."),
    "doctor": ("foveate.cli.doctor", "Show what is installed here, and what is missing."),
    "allow": ("foveate.cli.allow", "Let a recipe run a Python file of yours."),
}
EXIT_USER_ERROR = 2
# Failures of the machine that may strike at any write, with the fix; other OSErrors are bugs.
_SURROUNDINGS = {
    errno.ENOSPC: "free space, then go on with --resume",
    errno.EDQUOT: "free space in your quota, then go on with --resume",
    errno.EFBIG: "files are limited in size here (`ulimit -f`): raise the limit, then go on with --resume",
    errno.EROFS: "write to another place (train.output=...)",
    errno.EACCES: "check its permissions",
    errno.EIO: "the disk failed; write to another place (train.output=...)",
}
EXIT_INTERRUPTED = 130


class LazyGroup(click.Group):
    """A group that lists its commands from a table and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[cmd_name][0]).command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from foveate.config.suggest import listed, nearest

            near = nearest(args[0], COMMANDS)
            hint = f"did you mean {near}?" if near else f"commands: {listed(COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="foveate %(version)s")
def cli() -> None:
    """Fine-tune vision-language models from one YAML recipe: every label proven, every sample accounted for.

    Begin with `foveate check RECIPE`, then `foveate train RECIPE`. Any setting can be overridden: `optim.lr=2e-5`.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code: 0, 2 for an error of the user's input or surroundings, 130 when interrupted.

    Any other exception is a bug of Foveate and keeps its traceback.
    """
    if argv is None:
        startup.begin()
    try:
        result = cli.main(args=None if argv is None else list(argv), prog_name="foveate", standalone_mode=False)
    except FoveateError as error:
        return _fail(error)
    except OSError as error:
        if error.errno not in _SURROUNDINGS:
            raise
        return _fail(FoveateError(error.strerror, where=str(error.filename or "a file"), fix=_SURROUNDINGS[error.errno]))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        # Click has already ended the line that the terminal's ^C stands on.
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _fail(error: FoveateError) -> int:
    """Shows the error; one of several processes leaves that to its launcher, which shows the first one only."""
    from foveate.launch.failure import record_failure

    if not record_failure(error, _message(error)):
        print(_message(error), file=sys.stderr)
    return EXIT_USER_ERROR


def _message(error: FoveateError) -> str:
    if not isinstance(error, RecipeError):
        return f"error: {error}"
    # Problems keep the start of their lines, where editors and terminals look for file:line.
    count = len(error.problems)
    return f"{error}\n{count} problem{'s' if count != 1 else ''} in the recipe; nothing was run"
