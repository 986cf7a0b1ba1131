"""Look at every scene from its candidate cameras (stage `render`)."""

import logging

from r1pipe.datasets.frames import Frames, read_frames
from r1pipe.datasets.manifest import Location, Manifest
from r1pipe.datasets.scannet import INFO, read_alignment
from r1pipe.params import Params
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene, scene_ids
from r1pipe.stages.runner import run
from r1pipe.stages.work import deliver, in_progress
from r1pipe.views.views import render_scene

logger = logging.getLogger(__name__)


def main(params: Params) -> None:
    """Write the views of every scene; finished scenes survive an interruption."""
    paths = params.paths
    locations = {location.scene.id: location for location in Manifest.load(paths.manifest).locations()}
    with in_progress("render", [params.render], [paths.manifest, paths.scenes]) as work:
        views = work / "views"
        views.mkdir(exist_ok=True)
        done, left_out = set(scene_ids(views)), 0
        for scene_id in track([i for i in scene_ids(paths.scenes) if i not in done], "render"):
            frames = _frames(locations[scene_id])
            left_out += len(frames.left_out)
            render_scene(Scene.load(paths.scenes, scene_id), params.render, frames).save(views)
        if left_out:
            logger.warning("%d frames left out, each named above.", left_out)
        deliver(views, paths.views)


def _frames(location: Location) -> Frames:
    """A scan's real frames, in the scene's frame; those that say nothing are named in the log."""
    alignment_44 = read_alignment(location.folder / f"{location.scene.id}{INFO}", required=location.scene.annotated)
    frames = read_frames(location.folder, alignment_44, location.scene.frames)
    for clause in frames.left_out:
        logger.warning("%s, %s; left out.", location.scene.id, clause)
    return frames


if __name__ == "__main__":
    run(main)
