"""Commands about numbers: score predictions, compare experiments, say what a part is worth."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from rich.console import Console
from rich.table import Table

from r1pipe.errors import DataError
from r1pipe.params import Params

Kind = TypeVar("Kind")


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


def compare(
    first: Annotated[str, typer.Argument(help="An experiment or a commit, `workspace`, or a prediction file.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    arm: Annotated[
        str, typer.Option(help="Of experiments: sft, grpo, control_prompts, control_sequences or blind.")
    ] = "grpo",
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


def _gaps_table(first: str, second: str, gaps: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("metric", first, second, "difference", "95 % interval", "n")
    for name, gap in gaps.items():
        numbers = [f"{gap[key]:.2f}" for key in ("first", "second", "difference")]
        table.add_row(name, *numbers, f"{gap['low']:.2f} to {gap['high']:.2f}", str(gap["n"]))
    return table
