"""Commands about one room: ask it, see what the model looks at."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from r1pipe.params import Params

Room = Annotated[str, typer.Argument(help="A room's id, a ScanNet scan's id, or a .ply, .npz, .glb or .obj file.")]
AskedTask = Annotated[str, typer.Option(help="qa, situated, grounding, captioning, dialogue, planning, description.")]
Tuned = Annotated[Path | None, typer.Option(help="A tuned model; `models/grpo` by default.")]
ScanNet = Annotated[Path | None, typer.Option(help="A directory in ScanNet's layout; `paths.scannet` by default.")]


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
