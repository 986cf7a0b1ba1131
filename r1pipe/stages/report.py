"""Put everything that was measured on one page (stage `report`)."""

import os
from pathlib import Path

from r1pipe.datasets.sample import Sample
from r1pipe.evaluation.examples import Example, Material, examples
from r1pipe.evaluation.looking import TUNED, Looks, choices_for
from r1pipe.evaluation.report import Findings, render
from r1pipe.evaluation.series import read_courses
from r1pipe.evaluation.sheet import Tile, tiles
from r1pipe.files import read_json, read_jsonl, read_models, write_text
from r1pipe.params import Params
from r1pipe.stages.runner import run
from r1pipe.views.views import Views

COURSES = ("sft", "grpo", "control")
"""The stages whose training is drawn."""


def main(params: Params) -> None:
    """Read metrics, courses and predictions; write the page."""
    paths = params.paths
    metrics = read_json(paths.metrics / "evaluate.json")
    material: dict[str, Material] = {
        task: _material(paths.predictions, task, list(metrics)) for task in params.evaluate.tasks
    }
    samples = read_models(paths.samples / f"{params.evaluate.split}.jsonl", Sample)
    shown = examples(material, samples, params.think, params.report.num_examples)
    looks = list(read_jsonl(paths.predictions / f"views-{TUNED}.jsonl"))
    page = render(
        Findings(
            metrics=metrics,
            provenance=read_json(paths.metrics / "provenance.json"),
            backbones=read_json(paths.metrics / "backbones.json"),
            validation=read_json(paths.metrics / "validate.json"),
            data_docs=Path(os.path.relpath(paths.data_docs / "index.html", paths.report.parent)).as_posix(),
            courses={stage: read_courses(paths.logs / stage) for stage in COURSES},
            examples=shown,
            sheets=[_sheet(example, looks, paths.views) for example in shown],
            looking=read_json(paths.metrics / "views.json"),
            ablations=[read_json(path) for path in sorted(paths.ablations.glob("*.json"))],
            procedural=paths.scannet is None,
        )
    )
    write_text(paths.report, page)


def _sheet(example: Example, looks: Looks, views: Path) -> list[Tile]:
    choices = choices_for(looks, example.task, example.scene_id, example.question)
    return tiles(Views.load(views, example.scene_id).rgb, choices)


def _material(folder: Path, task: str, arms: list[str]) -> Material:
    references = list(read_jsonl(folder / f"references-{task}.jsonl"))
    return Material(references, {arm: list(read_jsonl(folder / f"{arm}-{task}.jsonl")) for arm in arms})


if __name__ == "__main__":
    run(main)
