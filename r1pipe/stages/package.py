"""Put the tuned model, its encoders and some rooms into a Bento that answers over HTTP (stage `package`)."""

from pathlib import Path

from r1pipe.datasets import Sample
from r1pipe.files import read_models
from r1pipe.params import Params
from r1pipe.serving.package import package
from r1pipe.stages.runner import run


def main(params: Params) -> None:
    """Package the first rooms of the split that was evaluated."""
    samples = read_models(params.paths.samples / f"{params.evaluate.split}.jsonl", Sample)
    scene_ids = sorted({sample.scene_id for sample in samples})[: params.package.num_rooms]
    package(params, scene_ids, home=Path.cwd())


if __name__ == "__main__":
    run(main)
