"""Put everything that was measured on one page (stage `report`)."""

import os
from pathlib import Path
from typing import Any

from r1pipe.datasets.sample import Sample
from r1pipe.evaluation.examples import SHOWN, Example, Material, Pool
from r1pipe.evaluation.looking import TUNED, choices_for
from r1pipe.evaluation.provenance import lineage
from r1pipe.evaluation.report import Findings, Gallery, Shown, render
from r1pipe.evaluation.rooms import draw_room
from r1pipe.evaluation.series import Series, read_courses
from r1pipe.evaluation.sheet import picture_uri, tiles
from r1pipe.files import read_json, read_jsonl, read_models, write_text
from r1pipe.params import Params
from r1pipe.scenes.scene import Scene
from r1pipe.serving.lineage import changed_files, last_commit
from r1pipe.stages.costs import PICTURE
from r1pipe.stages.runner import run
from r1pipe.views.views import Views


def main(params: Params) -> None:
    """Read metrics, courses and predictions; write the page."""
    paths = params.paths
    write_text(
        paths.report,
        render(
            Findings(
                metrics=read_json(paths.metrics / "evaluate.json"),
                provenance=read_json(paths.metrics / "provenance.json"),
                lineage=_lineage(params),
                backbones=read_json(paths.metrics / "backbones.json"),
                validation=read_json(paths.metrics / "validate.json"),
                data_docs=Path(os.path.relpath(paths.data_docs / "index.html", paths.report.parent)).as_posix(),
                costs=PICTURE,
                courses=_courses(paths.logs),
                movement=_movement(paths.metrics),
                galleries=_galleries(params),
                looking=read_json(paths.metrics / "views.json"),
                ablations=[read_json(path) for path in sorted(paths.ablations.glob("*.json"))],
                procedural=paths.scannet is None,
            )
        ),
    )


def _courses(logs: Path) -> dict[str, dict[str, Series]]:
    """What each training stage logged; a control's names begin with its arm's."""
    controls = {
        f"control_{folder.name}/{name}": series
        for folder in sorted((logs / "control").glob("*"))
        for name, series in read_courses(folder).items()
    }
    return {"sft": read_courses(logs / "sft"), "grpo": read_courses(logs / "grpo"), "control": controls}


def _movement(metrics: Path) -> dict[str, Any]:
    """How far each training moved each part, the controls by the names of their arms."""
    controls = read_json(metrics / "control.json")["movement"]
    found = {stage: read_json(metrics / f"{stage}.json")["movement"] for stage in ("sft", "grpo")}
    return found | {f"control_{name}": moved for name, moved in controls.items()}


def _lineage(params: Params) -> dict[str, Any]:
    hashed = {"manifest of the raw files": params.paths.manifest}
    return lineage(params.values(), hashed, last_commit(Path.cwd()), changed_files(Path.cwd()))


def _galleries(params: Params) -> list[Gallery]:
    """Examples by lot, the best and the worst, with what there is to see."""
    paths, settings = params.paths, params.report
    arms = list(read_json(paths.metrics / "evaluate.json"))
    pool = Pool(
        {task: _material(paths.predictions, task, arms) for task in params.evaluate.tasks if task in SHOWN},
        {arm: list(read_jsonl(path)) for arm in arms if (path := paths.predictions / f"{arm}-reward.jsonl").is_file()},
        read_models(paths.samples / f"{params.evaluate.split}.jsonl", Sample),
        params.think,
    )
    ranked = pool.ranked(settings.num_ranked)
    looks = list(read_jsonl(paths.predictions / f"views-{TUNED}.jsonl"))

    def shown(example: Example) -> Shown:
        room = draw_room(Scene.load(paths.scenes, example.scene_id), example.targets, example.pointed)
        choices = choices_for(looks, example.task, example.scene_id, example.question)
        sheet = tiles(Views.load(paths.views, example.scene_id).rgb, choices)
        return Shown(example, picture_uri(room, size=max(room.shape)), sheet)

    kinds = {"by lot": pool.by_lot(settings.num_examples), "best": ranked.best, "worst": ranked.worst}
    return [Gallery(kind, [shown(example) for example in examples]) for kind, examples in kinds.items() if examples]


def _material(folder: Path, task: str, arms: list[str]) -> Material:
    references = list(read_jsonl(folder / f"references-{task}.jsonl"))
    return Material(references, {arm: list(read_jsonl(folder / f"{arm}-{task}.jsonl")) for arm in arms})


if __name__ == "__main__":
    run(main)
