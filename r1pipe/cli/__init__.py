"""The command line: run the pipeline, ask a room, score predictions, see what a machine lacks.

Commands import what they need when they run, so that `--help` is quick.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from r1pipe.cli.pipeline import doctor, profile, run, synthesize
from r1pipe.cli.rooms import ask, view
from r1pipe.cli.scores import ablate, compare, score
from r1pipe.errors import R1Error

Args = ParamSpec("Args")


def in_a_sentence(command: Callable[Args, None]) -> Callable[Args, None]:
    """The command, whose errors are one sentence on stderr and exit status 1."""

    @wraps(command)
    def guarded(*args: Args.args, **kwargs: Args.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except R1Error as error:
            typer.echo(" ".join(str(error).split()), err=True)
            raise typer.Exit(1) from None

    return guarded


app = typer.Typer(
    help="Train, measure and serve 3D-R1, a vision-language model that reasons about 3D rooms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (run, synthesize, ask, view, score, compare, ablate, profile, doctor):
    app.command()(in_a_sentence(command))
