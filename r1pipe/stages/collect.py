"""Find every raw file: write the procedural rooms, and reference the ScanNet scans (stage `collect`)."""

from pathlib import Path

from r1pipe.datasets.manifest import Kind, build
from r1pipe.files import whole
from r1pipe.params import Params
from r1pipe.procedural import write_rooms
from r1pipe.stages.runner import run


def main(params: Params) -> None:
    """Write the rooms and the manifest."""
    roots: list[tuple[Kind, Path]] = []
    with whole(params.paths.raw) as raw:
        write_rooms(raw, params.collect, params.base.seed, params.base.threads)
    if any(params.collect.rooms.model_dump().values()):
        roots.append(("procedural", params.paths.raw))
    if params.paths.scannet is not None:
        roots.append(("scannet", params.paths.scannet))
    manifest = build(roots, frames_per_room=params.collect.frames_per_room, workers=params.base.threads)
    manifest.save(params.paths.manifest)


if __name__ == "__main__":
    run(main)
