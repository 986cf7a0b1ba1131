"""The page: a room in 3D, a question, the reasoning as it streams, boxes in the room, and the views it rests on."""

from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
from fastapi import Response

from r1pipe.serving import markup
from r1pipe.serving.handlers import Attached, Handlers, Shown
from r1pipe.serving.scans import FORMATS, GZIP, MAX_BYTES

FONTS = ["ui-sans-serif", "system-ui", "sans-serif"]
"""Those of the machine: a page that asks a room asks nobody else for fonts."""

FORGET_S = 3600
"""Seconds after which an upload's file is removed; its room is in memory."""

MAX_AT_ONCE, MAX_WAITING = 8, 32
"""Questions that the page asks at the same time, and that may wait for those; one more is refused."""

_ICON = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><path d="M2 5l6-3 6 3v7l-6 3-6-3zM2 5l6 3 6-3M8 8v7" fill="none" stroke="#d6336c"/></svg>"""
_TITLE = "# Ask a room\nPick a room or upload a scan, ask, and see which objects and views the answer rests on."
_LEGEND = "<div class='r1-legend'>{}</div>".format(
    "".join(
        f"<span><i class='r1-key r1-is-{role}'></i>{words}</span>"
        for role, words in (
            ("answer", "what the answer points at"),
            ("named", "what was named"),
            ("detected", "what else was detected"),
            ("view", "chosen views' cameras"),
            ("you", "where you stand"),
        )
    )
)
_SCORES = (
    "**text-3D**: how well the points that a camera sees match the question. **image-3D**: how much of the room it adds. "
    "**CLIP**: how well its picture matches the question. **utility**: their sum with learnt weights; the model looks at "
    "the views where it is greatest. Bars run from the least to the greatest of all candidates."
)


class _Choosing(NamedTuple):
    scene: gr.Dropdown
    scan: gr.UploadButton


class _Looking(NamedTuple):
    picture: gr.Plot
    every: gr.Checkbox


class _Asking(NamedTuple):
    task: gr.Dropdown
    standing: gr.Group
    stand: list[gr.Slider]
    question: gr.Textbox
    samples: gr.Dataset
    answer: gr.HTML
    restart: gr.Button


class _Below(NamedTuple):
    chosen: gr.HTML
    objects: gr.HTML
    others: gr.HTML
    model: gr.Markdown


def build(attached: Attached) -> gr.Blocks:
    """The page over the model that `attached` gives once it is loaded."""
    page: gr.Blocks
    with gr.Blocks(title="R1: ask a room", analytics_enabled=False, delete_cache=(FORGET_S, FORGET_S)) as page:
        gr.Markdown(_TITLE)
        with gr.Row(elem_id="r1-grid"):
            parts = _choosing(), _looking(), _asking()
        _wire(page, Handlers(attached), *parts, _below())
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=MAX_AT_ONCE)
    return page


def _choosing() -> _Choosing:
    with gr.Column(elem_id="r1-choose"), gr.Row(equal_height=True):
        return _Choosing(
            gr.Dropdown(label="Room", choices=[], interactive=True, scale=3, min_width=140),
            gr.UploadButton("Upload a scan", file_types=[*FORMATS, GZIP], scale=2, min_width=120),
        )


def _looking() -> _Looking:
    with gr.Column(elem_id="r1-room"):
        picture = gr.Plot(show_label=False, container=False)
        gr.HTML(_LEGEND)
        return _Looking(picture, gr.Checkbox(label="Show every detected object", value=False, container=False))


def _asking() -> _Asking:
    with gr.Column(elem_id="r1-ask"):
        task = gr.Dropdown(label="Task", choices=[], interactive=True)
        with gr.Group(visible=False) as standing:
            stand = [
                gr.Slider(label="I stand at x (m)", minimum=-10, maximum=10, value=0, step=0.1),
                gr.Slider(label="and y (m)", minimum=-10, maximum=10, value=0, step=0.1),
                gr.Slider(label="looking (degrees left of +y)", minimum=-180, maximum=180, value=0, step=5),
            ]
        return _Asking(
            task,
            standing,
            stand,
            gr.Textbox(label="Question", submit_btn="Ask", max_length=2000),
            gr.Dataset(components=["textbox"], samples=[], label="For example", layout="gallery"),
            gr.HTML(markup.unasked()),
            gr.Button("Start the conversation anew", visible=False, size="sm"),
        )


def _below() -> _Below:
    chosen = gr.HTML(elem_id="r1-chosen")
    with gr.Accordion("Detected objects", open=False):
        objects = gr.HTML()
    with gr.Accordion("The other candidate views, and what the scores mean", open=False):
        gr.Markdown(_SCORES)
        others = gr.HTML()
    return _Below(chosen, objects, others, gr.Markdown())


def _wire(
    page: gr.Blocks, handlers: Handlers, choosing: _Choosing, looking: _Looking, asking: _Asking, below: _Below
) -> None:
    """What each input sets off."""
    shown = gr.State(Shown())
    scene, scan = choosing
    picture, every = looking
    task, standing, stand, question, samples, answer, restart = asking
    drawn = [scene, task, shown, every, *stand]
    entered = [shown, picture, answer, below.chosen, below.others, below.objects, *stand]
    switched = [question, samples, standing, restart]
    answered = [shown, answer, picture, below.chosen, below.others]

    page.load(handlers.open, None, [scene, task, below.model])
    scene.change(handlers.enter, [scene, task], entered).then(handlers.switch, [task, scene], switched)
    task.change(handlers.switch, [task, scene], switched).then(handlers.draw, drawn, picture, show_progress="hidden")
    scan.upload(handlers.take_in, scan, scene)
    samples.click(lambda row: row[0], samples, question, show_progress="hidden")
    moved = [every.change, *(slider.release for slider in stand)]
    gr.on(moved, handlers.draw, drawn, picture, show_progress="hidden")
    question.submit(handlers.ask, [scene, task, question, shown, every, *stand], answered, show_progress="hidden")
    restart.click(handlers.restart, None, [shown, answer])


def mount(app: Any, attached: Attached) -> Any:
    """The application with the page at `/ui`; nothing on it comes from another host."""
    app.add_api_route("/favicon.ico", lambda: Response(_ICON, media_type="image/svg+xml"), include_in_schema=False)
    theme = gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app,
        build(attached),
        path="/ui",
        max_file_size=MAX_BYTES,
        show_error=False,  # what nobody foresaw is for the log, not for the page
        theme=theme,
        css_paths=[Path(__file__).with_name("page.css")],
        footer_links=[],
    )
