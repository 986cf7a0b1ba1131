"""The pipeline as a flow: every stage after those that it reads, here or on workers.

    python -m flows.reproduce --stop-after validate     in this checkout

Deployed, a run works on a commit: it sends each stage to the pool `r1pipe-cpu` or `r1pipe-gpu`, and takes the results
from DVC's remote. What is up to date, here or in the run cache, is skipped; so a run that failed, started again,
continues from the stage that failed.
"""

from typing import Annotated

import typer
from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.checkout import Source
from flows.pipeline import Wish, follow, opened
from r1pipe.errors import R1Error

CONCURRENT_STAGES = 2
"""Independent stages that run side by side; each has `base.threads` threads of its own."""


@flow(name="reproduce", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def reproduce(
    overrides: tuple[str, ...] = (),
    force: tuple[str, ...] = (),
    start_from: str | None = None,
    stop_after: str | None = None,
    experiment: str | None = None,
    source: Source | None = None,
) -> None:
    """Bring the pipeline up to date; a failed stage stops what depends on it, and the run.

    Args:
        overrides: of the parameters, as Hydra writes them: `scale=small`, `sft.max_steps=1200`.
        force: stages to run though they are up to date.
        start_from: a stage; those before it have to be up to date.
        stop_after: a stage; those that read it are left.
        experiment: a name under which to keep the results as a DVC experiment.
        source: the commit that workers work on; null runs the stages here, in the working directory.
    """
    wish = Wish(overrides, force, start_from, stop_after, experiment)
    with opened(source, wish.overrides):
        follow(wish, source)


@flow(name="synthesize-more", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def synthesize_more(
    rooms: int, overrides: tuple[str, ...] = (), experiment: str | None = None, source: Source | None = None
) -> None:
    """Chains of thought for more rooms, as far as the gate of `validate`; what was asked and paid is not asked again.

    Args:
        rooms: of the train split, those that are there among them.
        overrides: of other parameters; `synthesize.teacher=gemini`, say, or `synthesize.gemini.budget=20`.
        experiment: as in `reproduce`.
        source: as in `reproduce`.
    """
    more = (f"collect.rooms.train={rooms}", *overrides)
    wish = Wish(overrides=more, stop_after="validate", experiment=experiment)
    with opened(source, wish.overrides):
        follow(wish, source)


@flow(name="retrain", task_runner=ThreadPoolTaskRunner(max_workers=CONCURRENT_STAGES))  # type: ignore[arg-type]
def retrain(overrides: tuple[str, ...] = (), experiment: str | None = None, source: Source | None = None) -> None:
    """The model anew, from `sft` on, on data that are there.

    Args:
        overrides: of the parameters.
        experiment: as in `reproduce`.
        source: as in `reproduce`.
    """
    wish = Wish(overrides=overrides, force=("sft",), start_from="sft", experiment=experiment)
    with opened(source, wish.overrides):
        follow(wish, source)


def main(
    override: Annotated[list[str] | None, typer.Option("-S", help="Of the parameters, as `dvc exp run -S`.")] = None,
    force: Annotated[list[str] | None, typer.Option(help="A stage to run though it is up to date.")] = None,
    start_from: Annotated[str | None, typer.Option(help="A stage.")] = None,
    stop_after: Annotated[str | None, typer.Option(help="A stage.")] = None,
    experiment: Annotated[str | None, typer.Option(help="Keep the results as a DVC experiment of this name.")] = None,
) -> None:
    """Bring the pipeline up to date in this checkout, as a Prefect flow."""
    try:
        reproduce(tuple(override or ()), tuple(force or ()), start_from, stop_after, experiment)
    except R1Error as error:
        typer.echo(" ".join(str(error).split()), err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
