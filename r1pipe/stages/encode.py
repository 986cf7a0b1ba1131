"""Take every scene, its views and every question through the frozen encoders (stage `encode`)."""

import os

from r1pipe.datasets.manifest import Manifest
from r1pipe.datasets.sample import Sample
from r1pipe.files import read_models
from r1pipe.models.encoders.encoding import Encoders, Job
from r1pipe.models.encoders.proposals import Masks
from r1pipe.models.encoders.texts import TextTable
from r1pipe.params import Params
from r1pipe.scenes.scene import scene_ids
from r1pipe.stages.runner import run
from r1pipe.stages.work import deliver, in_progress

CLUSTER = "R1PIPE_RAY_ADDRESS"
"""Environment variable with the address of a Ray cluster that encodes the scenes; no parameter, for the files are the same."""


def main(params: Params) -> None:
    """Write the features of every scene and the embeddings of every question; finished scenes survive an interruption."""
    paths, proposals = params.paths, params.encode.proposals
    masks = Masks.of(proposals, Manifest.load(paths.manifest)) if proposals else None
    inputs = [paths.scenes, paths.views, paths.backbones, paths.samples, *([proposals] if proposals else [])]
    samples = [sample for path in sorted(paths.samples.glob("*.jsonl")) for sample in read_models(path, Sample)]
    encoders = Encoders.load(paths.backbones, params.encode)
    with in_progress("encode", [params.base, params.encode], inputs) as work:
        features = work / "features"
        job = Job(encoders, masks, paths.scenes, paths.views, features)
        job.run(scene_ids(paths.scenes), processes=params.base.threads, cluster=os.environ.get(CLUSTER))
        TextTable.embed((sample.question for sample in samples), encoders.clip).save(features)
        deliver(features, paths.features)


if __name__ == "__main__":
    run(main)
