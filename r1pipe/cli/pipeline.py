"""Commands about the whole pipeline: run it, estimate it, profile its data, examine the machine."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from r1pipe.errors import DataError, ParamsError
from r1pipe.files import read_json
from r1pipe.params import Params
from r1pipe.stages.costs import Cost, read_costs
from r1pipe.stages.runner import environment

if TYPE_CHECKING:  # the doctor takes a second to import
    from r1pipe.doctor import Finding, Plan


def run(
    stages: Annotated[list[str] | None, typer.Argument(help="Stages to bring up to date; all by default.")] = None,
) -> None:
    """Bring the pipeline up to date, and show what came out.

    Runs `dvc repro`: what is up to date is not run again, what was interrupted goes on. The exit status is DVC's.

    Example: `r1pipe run`, or `r1pipe run evaluate` for everything up to the scores.
    """
    params = Params.load()
    command = [sys.executable, "-m", "dvc", "repro", *(stages or [])]
    before = read_costs()
    status = subprocess.run(command, check=False, env=environment()).returncode
    console = Console()
    _show_costs(console, before, read_costs())
    if status == 0:
        _show_results(console, params)
    raise typer.Exit(status)


def synthesize(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what a run would ask, take and cost.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the dry run as one JSON object.")] = False,
) -> None:
    """Ask the teacher for the chains of thought that are missing, or say first what that would cost.

    The same as `r1pipe run synthesize`: DVC brings the stage, and what it needs, up to date; progress shows money and
    rate. A killed run goes on where it stopped; what the ledger (`synthesize.gemini.ledger`) holds is never paid again.

    The dry run prices the teacher `gemini` on the samples that are there, whichever teacher is set, and asks nobody.
    What a model's answers take is known from the ledger, where it has some.

    Example: `r1pipe synthesize --dry-run`, or `r1pipe synthesize`
    """
    if not dry_run:
        run(["synthesize"])
        return
    from r1pipe.progress import set_up_logging
    from r1pipe.stages.synthesize import price

    set_up_logging()
    params = Params.load()
    estimate = price(params)
    if as_json:
        typer.echo(json.dumps(asdict(estimate), indent=2))
    else:
        _show_estimate(estimate, params)


def profile(
    path: Annotated[Path, typer.Argument(help="The JSON to write, in `profiles/` where DVC is to see it change.")],
) -> None:
    """Store how the data are distributed now, for `validate` to warn of drift from it.

    Needs what `validate` reads. `validate.profile` in the parameters names the file to compare with.

    Example: `r1pipe profile profiles/mine.json`, then `dvc exp run -S validate.profile=profiles/mine.json`
    """
    from r1pipe.stages.validate import profile as store

    store(Params.load(), path)
    typer.echo(str(path))


def doctor(
    profile: Annotated[
        str | None, typer.Option(help="A scale of `conf/scale`: say what a run of it trains, needs and lacks.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set-param", "-S", help="With `--profile`: a parameter, as `dvc exp run -S` takes it."),
    ] = None,
) -> None:
    """Say what this machine can run, and what is missing.

    With a profile, before it is run: which parts are trained, at which learning rate and precision; pretrained weights,
    data, memory and GPUs that it needs, and what to do about those that are missing. The network is not asked.

    The exit status is 1 where the `tiny` scale, or the profile, cannot run here.

    Example: `r1pipe doctor`, or `r1pipe doctor --profile paper -S data=scannet -S launch.processes=8`
    """
    if profile is not None:
        _examine_profile(profile, overrides or [])
        return
    if overrides:
        raise ParamsError(f"Expected --profile with -S, found -S {overrides[0]} alone.")
    from r1pipe.doctor import examine

    missing = _show_findings(Console(), examine(Path.cwd()))
    if missing:
        raise DataError(f"Expected a machine that can run the tiny scale, found it lacks: {', '.join(missing)}.")
    typer.echo("This machine can run the tiny scale: make run")


def _examine_profile(profile: str, overrides: list[str]) -> None:
    from r1pipe.doctor import examine_profile, hardware, load_profile, plan

    home = Path.cwd()
    params = load_profile(home, profile, overrides)
    console = Console()
    _show_plans(console, profile, {"sft": plan(params, params.sft, home), "grpo": plan(params, params.grpo, home)})
    missing = _show_findings(console, examine_profile(params, hardware(), home))
    if missing:
        raise DataError(f"Expected what the profile {profile} needs, found it lacks: {', '.join(missing)}.")
    command = " ".join(f"-S {override}" for override in [f"scale={profile}", *overrides])
    typer.echo(f"This machine has what the profile {profile} needs: dvc exp run {command}")


def _show_plans(console: Console, profile: str, plans: Mapping[str, "Plan"]) -> None:
    """What each stage trains, a row a part, with its learning rate in each stage."""
    table = Table("part", "weights", "precision", *(f"{stage}, learning rate" for stage in plans))
    table.title = f"what {profile} trains"
    for part in dict.fromkeys(part for plan in plans.values() for part in plan.trained):
        rates = [plan.trained.get(part) for plan in plans.values()]
        shown = ["" if rate is None else f"{rate:g}" for rate in rates]
        table.add_row(part.name, f"{part.weights:,}", "float32", *shown)
    frozen = max(plans.values(), key=lambda plan: plan.frozen)
    if frozen.frozen:
        states = ["frozen" if plan.frozen else "" for plan in plans.values()]
        table.add_row("language model", f"{frozen.frozen:,}", frozen.frozen_dtype, *states)
    console.print(table)


def _show_findings(console: Console, findings: Sequence["Finding"]) -> list[str]:
    """A table of findings; gives the names of those that are missing."""
    table = Table("", "what", "found", "what for", show_lines=False)
    signs = {"ok": Text("ok", "green"), "missing": Text("missing", "bold red"), "optional": Text("-", "yellow")}
    for finding in findings:
        table.add_row(signs[finding.state], finding.what, Text(finding.found), Text(finding.purpose))
    console.print(table)
    return [finding.what for finding in findings if finding.state == "missing"]


def _show_estimate(estimate: Any, params: Params) -> None:
    gemini = params.synthesize.gemini
    table = Table("", "expected", "at most", title=f"a run with gemini/{gemini.model}{', in batches' * gemini.batch}")
    table.add_row("samples", f"{estimate.samples:,}", "")
    table.add_row("of these without reasoning, free", f"{estimate.references:,}", "")
    table.add_row("requests in the ledger, paid", f"{estimate.kept:,}", "")
    table.add_row("requests to make", f"{estimate.requests:,}", f"{estimate.requests:,}")
    table.add_row("prompt tokens", f"{estimate.prompt_tokens:,}", "")
    table.add_row("output tokens", f"{estimate.output_tokens:,}", f"{estimate.output_tokens_at_most:,}")
    table.add_row("dollars", f"{estimate.dollars:,.2f}", f"{estimate.dollars_at_most:,.2f}")
    wait = "within a day or two" if gemini.batch else f"{estimate.minutes:,.0f}"
    table.add_row(f"minutes at {gemini.requests_per_second:g} requests a second", wait, "")
    console = Console()
    console.print(table)
    if params.synthesize.teacher != "gemini":
        console.print(f"The teacher is {params.synthesize.teacher}, which costs nothing.", markup=False)


def _show_costs(console: Console, before: Mapping[str, Cost], now: Mapping[str, Cost]) -> None:
    """What each stage took when it last ran; one that DVC skipped, or took from its cache, did not run."""
    if not now:
        return
    table = Table("stage", "minutes", "peak GiB", "", title="last run of each stage")
    for stage, cost in now.items():
        ran = "" if cost != before.get(stage) else f"not run now, but on {cost['ended'][:10]}"
        table.add_row(stage, f"{cost['seconds'] / 60:.1f}", f"{cost['peak_mib'] / 1024:.1f}", ran)
    table.add_section()
    table.add_row("all", f"{sum(cost['seconds'] for cost in now.values()) / 60:.1f}", "", "")
    console.print(table)


def _show_results(console: Console, params: Params) -> None:
    """The scores where there are some, and what to do next."""
    from r1pipe.evaluation.table import results_table

    scores = params.paths.metrics / "evaluate.json"
    if scores.is_file():
        console.print(results_table(read_json(scores)))
    console.print(f"The report is {params.paths.report}.", markup=False)
    console.print("To ask the model, run: bentoml serve   (page at http://localhost:3000/ui)", markup=False)
