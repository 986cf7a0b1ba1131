"""Turn raw scans and annotations into aligned scenes and samples (stage `prepare`)."""

import logging
from collections import Counter

from r1pipe.datasets.manifest import Manifest
from r1pipe.datasets.preparation import read_samples, write_samples, write_scenes
from r1pipe.files import whole
from r1pipe.params import Params
from r1pipe.stages.runner import run

logger = logging.getLogger(__name__)


def main(params: Params) -> None:
    """Write scenes and samples; both appear, or neither."""
    manifest = Manifest.load(params.paths.manifest)
    with whole(params.paths.scenes) as scenes, whole(params.paths.samples) as folder:
        rooms = write_scenes(manifest, scenes, voxel_size=params.prepare.voxel_size, workers=params.base.threads)
        samples = read_samples(manifest, rooms, seed=params.base.seed)
        write_samples(samples, folder)
    logger.info("%d scenes, samples: %s", len(rooms), dict(sorted(Counter(s.task for s in samples).items())))


if __name__ == "__main__":
    run(main)
