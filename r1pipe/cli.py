"""The command line: run the pipeline, ask a room, score predictions, see what a machine lacks.

Commands import what they need when they run, so that `--help` is quick.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar, get_args

import typer
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from r1pipe.errors import DataError, R1Error
from r1pipe.files import read_json
from r1pipe.params import Params
from r1pipe.stages.costs import Cost, read_costs
from r1pipe.stages.runner import environment

app = typer.Typer(
    help="Train, measure and serve 3D-R1, a vision-language model that reasons about 3D rooms.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
Args = ParamSpec("Args")
Kind = TypeVar("Kind")

Room = Annotated[str, typer.Argument(help="A room's id, a ScanNet scan's id, or a .ply, .npz, .glb or .obj file.")]
AskedTask = Annotated[str, typer.Option(help="qa, situated, grounding, captioning, dialogue, planning, description.")]
Tuned = Annotated[Path | None, typer.Option(help="A tuned model; `models/grpo` by default.")]
ScanNet = Annotated[Path | None, typer.Option(help="A directory in ScanNet's layout; `paths.scannet` by default.")]


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


@app.command()
@in_a_sentence
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


@app.command()
@in_a_sentence
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


@app.command()
@in_a_sentence
def ask(
    scene: Room,
    question: Annotated[str, typer.Argument(help="It may name detected objects, `<obj_003>`.")],
    task: AskedTask = "qa",
    model: Tuned = None,
    scannet: ScanNet = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask the model about a room: its reasoning, answer, boxes and the views it chose.

    Example: `r1pipe ask room0504_00 "what color is the chair?"`

    Example: `r1pipe ask scan.ply "the chair next to the table." --task grounding --json`
    """
    from r1pipe.serving.asking import ask_scene

    answer = ask_scene(Params.load(), scene, question, task=task, model=model, scannet=scannet)
    if as_json:
        typer.echo(answer.model_dump_json(indent=2))
    else:
        _show_answer(answer)


@app.command()
@in_a_sentence
def view(
    scene: Room,
    question: Annotated[str, typer.Option(help="What the views are chosen for.")],
    task: AskedTask = "qa",
    model: Tuned = None,
    scannet: ScanNet = None,
    output: Annotated[
        Path | None, typer.Option(help="The PNG to write; `reports/views/<scene>-<question>.png` by default.")
    ] = None,
) -> None:
    """See what the model looks at: every candidate view with its scores for a question, the chosen ones framed.

    A view scores by the points that it shows (text3d), by how much of the room it adds (image3d) and by its picture
    (clip); the utility is their weighted sum, with weights that training has moved. On a desktop the sheet is opened.

    Example: `r1pipe view room0504_00 --question "what color is the chair?"`

    Example: `r1pipe view scan.ply --question "the lamp on the desk." --task grounding --output sheet.png`
    """
    from r1pipe.evaluation.sheet import save_sheet
    from r1pipe.serving.asking import look_scene

    look = look_scene(Params.load(), scene, question, task=task, model=model, scannet=scannet)
    ask, kept = look.ask, sum(choice.chosen for choice in look.choices)
    subtitle = f"{ask.scene_id}, {ask.kind}, {look.model}: {kept} of {len(look.choices)} views chosen"
    path = output or Path("reports/views") / f"{ask.scene_id}-{_slug(ask.question)}.png"
    save_sheet(path, look.photographs, look.choices, title=ask.question, subtitle=subtitle)
    typer.echo(str(path))
    if sys.stdout.isatty() and (sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ):
        typer.launch(str(path))


def _slug(question: str) -> str:
    """A question as part of a file's name, at most 60 letters."""
    return re.sub("[^a-z0-9]+", "-", question.lower()).strip("-")[:60].rstrip("-") or "question"


def _show_answer(answer: Any) -> None:
    lines = [Text(answer.thinking, "dim"), Text()] if answer.thinking else []
    lines.append(Text(answer.answer, "bold"))
    for thing in answer.objects:
        box = " ".join(f"{x:.2f}" for x in thing.box)
        lines.append(Text(f"{thing.id} {thing.label} ({thing.score:.2f}) at {box}", "cyan"))
    chosen = [view for view in answer.views if view.chosen]
    lines.append(Text("views " + ", ".join(f"{v.view} (utility {v.utility:.2f})" for v in chosen), "green"))
    lines += [Text(warning, "yellow") for warning in answer.warnings]
    title, footer = f"{answer.scene_id}: {answer.question}", f"{answer.model}, {answer.timings['answered']:.2f} s"
    Console().print(Panel(Text("\n").join(lines), title=Text(title), subtitle=Text(footer)))


@app.command()
@in_a_sentence
def score(
    task: Annotated[
        str,
        typer.Argument(
            help="qa, situated, dialogue, planning, grounding, multi-grounding, captioning, object-captioning."
        ),
    ],
    references: Annotated[Path | None, typer.Option(help="JSONL, or the benchmark's own JSON; the same ids.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="JSONL, or a benchmark's submission (JSON, or a folder of scenes).")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Whose rules apply, the benchmark's by default; `list` names them.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Set an option of the protocol, such as `prediction.ptb=false`; may repeat."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="`prior`: score the answers that a question's first three words suggest.")
    ] = None,
    learn_from: Annotated[Path | None, typer.Option(help="Where the baseline learns: another split's file.")] = None,
    meteor: Annotated[bool, typer.Option(help="METEOR, where Java and its jar are: 5 to 15 seconds.")] = True,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples behind 95 % intervals; none for 0.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    clip: Annotated[
        str | None, typer.Option(help="For object-captioning: a folder in open_clip's format, or `name:tag`.")
    ] = None,
    sentence_model: Annotated[
        str | None, typer.Option(help="For object-captioning: a folder or `hub-id@revision` of transformers.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--json", help="Also write the scores here.")] = None,
) -> None:
    """Score anybody's predictions with a benchmark's own rules; prints one JSON object.

    Reads JSONL of ours and what benchmarks publish: ScanQA's `answer_top10`, SQA3D's questions and annotations, `corpus`
    and `pred` JSON, ScanRefer's, Multi3DRefer's and Scan2Cap's boxes. Files in another unit or frame are refused.

    Example: `r1pipe score qa --predictions predictions.jsonl --references references.jsonl`

    Example: `r1pipe score situated --baseline prior --learn-from train.json --references test.json`

    Example: `r1pipe score captioning --protocol list`
    """
    from r1pipe.evaluation.scorecard import Scoring, run_baseline, run_score

    scored = _score_task(task)
    if protocol == "list":
        _show_protocols(scored)
        return
    how = Scoring(protocol, _options(option or []), meteor, bootstrap, seed, clip, sentence_model)
    wanted = _given(references, "--references")
    if baseline is None:
        values = run_score(scored, _given(predictions, "--predictions"), wanted, output, how)
    elif baseline == "prior" and predictions is None:
        values = run_baseline(scored, _given(learn_from, "--learn-from"), wanted, output, how)
    else:
        raise DataError(f"Expected --predictions, or --baseline prior without them, found --baseline {baseline}.")
    for warning in values["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(json.dumps(values, indent=2))


def _given(value: Kind | None, name: str) -> Kind:
    if value is None:
        raise DataError(f"Expected a value for {name}, found none.")
    return value


def _options(pairs: list[str]) -> dict[str, str]:
    """`name=value` pairs as a dictionary."""
    for pair in pairs:
        if "=" not in pair:
            raise DataError(f"Expected --option NAME=VALUE, found {pair!r}.")
    return dict(pair.split("=", 1) for pair in pairs)


def _show_protocols(task: Any) -> None:
    """The protocols of a task, the default first, with their rules; then what every option means."""
    from r1pipe.evaluation.protocols import PROTOCOLS, option_values, options_help

    usual: dict[str, str] = {}
    for rules in PROTOCOLS[task]:
        values = option_values(rules)
        usual = usual or values
        typer.echo(f"{rules.name}: {rules.rules}")
        changed = [f"{name}={value}" for name, value in values.items() if values is usual or value != usual[name]]
        typer.echo("  " + " ".join(changed))
    typer.echo(f"\nEach after {PROTOCOLS[task][0].name} says only where it differs. The options:")
    for name, meaning in options_help(PROTOCOLS[task][0]).items():
        typer.echo(f"  {name}: {meaning}")


def _score_task(task: str) -> Any:
    from r1pipe.evaluation.protocols import ScoreTask

    if task not in get_args(ScoreTask):
        raise DataError(f"Expected a task among {', '.join(get_args(ScoreTask))}, found {task!r}.")
    return task


@app.command()
@in_a_sentence
def compare(
    first: Annotated[str, typer.Argument(help="An experiment or a commit, `workspace`, or a prediction file.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    arm: Annotated[str, typer.Option(help="Of experiments: sft, grpo, control or blind.")] = "grpo",
    task: Annotated[str | None, typer.Option(help="Of files: as in `r1pipe score`.")] = None,
    references: Annotated[Path | None, typer.Option(help="Of files: what both answer.")] = None,
    resamples: Annotated[int, typer.Option(min=1, help="Bootstrap resamples behind a file's interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether one experiment, or one prediction file, is better than another, with paired 95 % intervals.

    Both must have answered the same questions. `dvc exp show` lists the experiments; `workspace` is what lies here.

    Example: `r1pipe compare spicy-tofu workspace`, or `r1pipe compare spicy-tofu tamer-lark --arm sft`

    Example: `r1pipe compare sft.jsonl grpo.jsonl --task qa --references references.jsonl`
    """
    found: Mapping[str, Any]
    if task is None and references is None:
        from r1pipe.ablate import ablation_table
        from r1pipe.experiments import compare_experiments

        shown, found = compare_experiments(first, second, arm, Params.load())
        table = ablation_table(shown, found)
    else:
        from r1pipe.evaluation.scorecard import run_compare

        files = Path(first), Path(second), _given(references, "--references")
        found = run_compare(_score_task(_given(task, "--task")), *files, resamples=resamples, seed=seed)
        table = _gaps_table(Path(first).name, Path(second).name, found)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        Console().print(table)


def _gaps_table(first: str, second: str, gaps: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("metric", first, second, "difference", "95 % interval", "n")
    for name, gap in gaps.items():
        numbers = [f"{gap[key]:.2f}" for key in ("first", "second", "difference")]
        table.add_row(name, *numbers, f"{gap['low']:.2f} to {gap['high']:.2f}", str(gap["n"]))
    return table


@app.command()
@in_a_sentence
def ablate(
    name: Annotated[str, typer.Argument(help="seeds, modalities, views, view-weights, rewards, think, lora-rank.")],
    queue: Annotated[int | None, typer.Option(min=1, help="Queue the runs with DVC, and have so many at once.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a part of the model is worth: run the pipeline without it, and compare sample by sample.

    Each run is a DVC experiment (`dvc exp show` lists them), one after the other in a folder of its own, or several at
    once by DVC's queue (`--queue 4`, where there is room for four); one that has been run at this commit is not run
    again. The table stays in `reports/ablations/`.

    `seeds` leaves nothing out: it pools SFT, more SFT and GRPO over three seeds. `modalities` takes image, depth and
    points away; `views` chooses views by rules that read no question; `view-weights` fixes what the selector learns;
    `rewards` leaves rewards out; `think` has tasks answer at once; `lora-rank` reinforces adapters instead of all weights.

    Example: `r1pipe ablate modalities`, or `r1pipe ablate views --queue 2`
    """
    from r1pipe.ablate import ablate as run_ablation
    from r1pipe.ablate import ablation_table
    from r1pipe.evaluation.ablations import ABLATIONS
    from r1pipe.progress import set_up_logging

    set_up_logging()
    results = run_ablation(name, Params.load(), jobs=queue)
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        Console().print(ablation_table(ABLATIONS[name], results))


@app.command()
@in_a_sentence
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


@app.command()
@in_a_sentence
def doctor() -> None:
    """Say what this machine can run, and what is missing.

    The exit status is 1 where the `tiny` scale cannot run here.

    Example: `r1pipe doctor`
    """
    from r1pipe.doctor import examine

    findings = examine(Path.cwd())
    table = Table("", "what", "found", "what for", show_lines=False)
    signs = {"ok": Text("ok", "green"), "missing": Text("missing", "bold red"), "optional": Text("-", "yellow")}
    for finding in findings:
        table.add_row(signs[finding.state], finding.what, Text(finding.found), Text(finding.purpose))
    Console().print(table)
    missing = [finding.what for finding in findings if finding.state == "missing"]
    if missing:
        raise DataError(f"Expected a machine that can run the tiny scale, found it lacks: {', '.join(missing)}.")
    typer.echo("This machine can run the tiny scale: make run")


if __name__ == "__main__":
    app()
