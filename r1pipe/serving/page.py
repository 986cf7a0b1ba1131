"""The page: a room in 3D, a question, the reasoning as it streams, boxes in the room, and the views it rests on."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from r1pipe.errors import R1Error
from r1pipe.params import Task
from r1pipe.serving import figures
from r1pipe.serving.answer import Answer, Ask, ViewScore
from r1pipe.serving.scans import MAX_BYTES
from r1pipe.serving.served import Room, ServedModel
from r1pipe.views.renderer import render

VIEW_SIZE = (320, 240)
"""Pixels of a view on the page."""

SPLAT = 3
"""Half-width of a point on them, pixels."""

FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]
"""Those of the machine: a page that asks a room asks nobody else for fonts."""

EXAMPLES = [
    ["qa", "what color is the chair?"],
    ["qa", "how many chairs are in the room?"],
    ["grounding", "the chair next to the table."],
    ["captioning", "describe <obj_000>."],
]
Attached = Callable[[], ServedModel]
Updates = tuple[Any, ...]


def build(attached: Attached) -> gr.Blocks:
    """The page over the model that `attached` gives once it is loaded."""
    page: gr.Blocks
    with gr.Blocks(title="R1: ask a room", analytics_enabled=False) as page:
        gr.Markdown("## Ask a room\nPick a room or upload a scan, ask, and see what the answer rests on.")
        with gr.Row():
            with gr.Column(scale=3):
                picture = gr.Plot(show_label=False)
                gallery = gr.Gallery(
                    label="Views that the model chose", columns=3, object_fit="contain", height=250, preview=False
                )
            with gr.Column(scale=2):
                scene = gr.Dropdown(label="Room", choices=[], interactive=True)
                scan = gr.UploadButton("Upload a scan (.ply, .npz)", file_types=[".ply", ".npz"], size="sm")
                task = gr.Dropdown(label="Task", choices=list(get_args(Task)), value="qa")
                question = gr.Textbox(label="Question", value=EXAMPLES[0][1], submit_btn="Ask")
                thinking = gr.Textbox(label="Reasoning", lines=4, interactive=False)
                answer = gr.Textbox(label="Answer", lines=2, interactive=False)
                note = gr.Markdown()
                gr.Examples(EXAMPLES, [task, question], label="For example")
        objects = gr.Dataframe(headers=["object", "class", "score", "box (m)"], label="Objects", interactive=False)
        scores = gr.Dataframe(
            headers=["view", "chosen", "text-3D", "image-3D", "CLIP", "utility"],
            label="All candidate views",
            interactive=False,
        )
        outputs = [thinking, answer, note, picture, objects, gallery, scores]
        page.load(partial(_choices, attached), None, scene)
        scene.change(partial(_look, attached), scene, picture)
        scan.upload(partial(_take_in, attached), scan, scene)
        question.submit(partial(_ask, attached), [scene, task, question], outputs)
    return page


def mount(app: Any, attached: Attached) -> Any:
    """The application with the page at `/ui`."""
    theme = gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, build(attached), path="/ui", max_file_size=MAX_BYTES, theme=theme, footer_links=["api"]
    )


def _choices(attached: Attached) -> gr.Dropdown:
    scene_ids = attached().scene_ids()
    return gr.Dropdown(choices=scene_ids, value=scene_ids[0] if scene_ids else None)


def _look(attached: Attached, scene_id: str | None) -> Any:
    if not scene_id:
        return None
    return figures.room(attached().room(scene_id).scene)


def _take_in(attached: Attached, path: str) -> gr.Dropdown:
    served = attached()
    try:
        scene_id = served.add(Path(path).read_bytes(), Path(path).name)
    except R1Error as error:
        raise gr.Error(str(error)) from None
    return gr.Dropdown(choices=served.scene_ids(), value=scene_id)


def _ask(attached: Attached, scene_id: str, task: Task, question: str) -> Iterator[Updates]:
    """Updates of the page: the reasoning as it grows, then everything."""
    served, keep = attached(), gr.skip()
    if not question.strip():
        raise gr.Error("Expected a question, found none.")
    try:
        room = served.room(scene_id)
        for step in served.stream(Ask(scene_id=scene_id, task=task, question=question)):
            if isinstance(step, Answer):
                yield _shown(step, room, fill_holes=served.settings.render.fill_holes)
            else:
                yield (step, "", "", keep, keep, keep, keep)
    except R1Error as error:
        raise gr.Error(str(error)) from None


def _shown(answer: Answer, room: Room, *, fill_holes: bool) -> Updates:
    """Everything that the page shows of an answer."""
    pointed = set(answer.boxes)
    marks = [figures.Mark(f"{o.id} {o.label}", o.box, o.box in pointed) for o in answer.objects]
    named = {mark.box for mark in marks}
    marks += [figures.Mark("box", box, answer=True) for box in answer.boxes if box not in named]
    took = f"{answer.model}, {answer.timings['answered']:.2f} s"
    note = "\n\n".join([*(f"⚠ {warning}" for warning in answer.warnings), f"<sub>{took}</sub>"])
    rows = [[o.id, o.label, o.score, " ".join(f"{x:.2f}" for x in o.box)] for o in answer.objects]
    chosen = [view for view in answer.views if view.chosen]
    photographs = _photographs(room, chosen, fill_holes=fill_holes)
    gallery = [(image, _caption(view)) for image, view in zip(photographs, chosen, strict=True)]
    scores = [
        [v.view, "yes" if v.chosen else "", *(round(x, 3) for x in (v.text3d, v.image3d, v.clip, v.utility))]
        for v in answer.views
    ]
    return answer.thinking, answer.answer, note, figures.room(room.scene, marks), rows, gallery, scores


def _caption(view: ViewScore) -> str:
    return f"view {view.view}: utility {view.utility:.2f}"


def _photographs(room: Room, views: list[ViewScore], *, fill_holes: bool) -> NDArray[np.uint8]:
    """`(V, H, W, 3)`: the views again, larger than the encoders saw them."""
    cameras = room.views.cameras.take(np.array([view.view for view in views], dtype=np.intp)).fitted(VIEW_SIZE)
    return render(room.scene.xyz, room.scene.rgb, cameras, radius=SPLAT, fill_holes=fill_holes).rgb
