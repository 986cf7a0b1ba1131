"""Put everything that was measured on one page (stage `report`)."""

from pathlib import Path

from r1pipe.datasets.sample import Sample
from r1pipe.evaluation.examples import Material, examples
from r1pipe.evaluation.report import Findings, render
from r1pipe.evaluation.series import read_courses
from r1pipe.files import read_json, read_jsonl, read_models, write_text
from r1pipe.params import Params
from r1pipe.stages.runner import run

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
    page = render(
        Findings(
            metrics=metrics,
            provenance=read_json(paths.metrics / "provenance.json"),
            backbones=read_json(paths.metrics / "backbones.json"),
            validation=read_json(paths.metrics / "validate.json"),
            courses={stage: read_courses(paths.logs / stage) for stage in COURSES},
            examples=examples(material, samples, params.think, params.report.num_examples),
            ablations=[read_json(path) for path in sorted(paths.ablations.glob("*.json"))],
            procedural=paths.scannet is None,
        )
    )
    write_text(paths.report, page)


def _material(folder: Path, task: str, arms: list[str]) -> Material:
    references = list(read_jsonl(folder / f"references-{task}.jsonl"))
    return Material(references, {arm: list(read_jsonl(folder / f"{arm}-{task}.jsonl")) for arm in arms})


if __name__ == "__main__":
    run(main)
