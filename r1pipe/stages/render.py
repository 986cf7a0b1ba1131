"""Look at every scene from its candidate cameras (stage `render`)."""

from r1pipe.datasets.frames import read_frames
from r1pipe.datasets.manifest import Location, Manifest
from r1pipe.datasets.scannet import INFO, read_alignment
from r1pipe.params import Params
from r1pipe.progress import track
from r1pipe.scenes.scene import Scene, scene_ids
from r1pipe.stages.runner import run
from r1pipe.stages.work import deliver, in_progress
from r1pipe.views.cameras import Cameras
from r1pipe.views.views import render_scene


def main(params: Params) -> None:
    """Write the views of every scene; finished scenes survive an interruption."""
    paths = params.paths
    locations = {location.scene.id: location for location in Manifest.load(paths.manifest).locations()}
    with in_progress("render", [params.render], [paths.manifest, paths.scenes]) as work:
        views = work / "views"
        views.mkdir(exist_ok=True)
        done = set(scene_ids(views))
        for scene_id in track([i for i in scene_ids(paths.scenes) if i not in done], "render"):
            frames = _cameras(locations[scene_id])
            render_scene(Scene.load(paths.scenes, scene_id), params.render, frames).save(views)
        deliver(views, paths.views)


def _cameras(location: Location) -> Cameras | None:
    """The cameras of a scan's real frames, in the scene's frame; None where it has none."""
    alignment_44 = read_alignment(location.folder / f"{location.scene.id}{INFO}", required=location.scene.annotated)
    frames = read_frames(location.folder, alignment_44, location.scene.frames)
    return Cameras(frames.poses, frames.intrinsics, frames.size) if len(frames.poses) else None


if __name__ == "__main__":
    run(main)
