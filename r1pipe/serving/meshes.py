"""Points on the surfaces of a mesh file, with their colours.

Shape suffixes: P points, F faces. Frame: metres, z up.
"""

import io
import re
from typing import NamedTuple, TypeAlias

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.color import uv_to_interpolated_color

from r1pipe.errors import DataError
from r1pipe.serving.gltf import harmless

MAX_POINTS = 5_000_000
"""Most points that memory is taken for; a ScanNet scan has 50,000 to 600,000."""

MAX_SAMPLES = 2_000_000
SAMPLES_PER_M2 = 10_000
"""Four in a square of 2 cm, what a cloud is thinned to."""

MAX_PIXELS = 100_000_000
"""Of all textures together; a phone's scan has one of 8192 x 8192."""

Geometry: TypeAlias = trimesh.Trimesh | trimesh.PointCloud
FloatArray: TypeAlias = NDArray[np.float64]
_VERTEX, _FACE = re.compile(rb"^v\s", re.MULTILINE), re.compile(rb"^f\s", re.MULTILINE)


class Points(NamedTuple):
    """A coloured cloud."""

    xyz: NDArray[np.float32]
    """`(P, 3)`, metres, z up."""

    rgb: NDArray[np.uint8]
    """`(P, 3)`."""


def read_glb(content: bytes, name: str) -> Points:
    """Points on the surfaces of a binary glTF 2.0 file, which is y up and in metres; its textures must be in the file.

    Raises:
        DataError: if it is damaged, too large, or refers to other files.
    """
    points = _sampled(harmless(content, name, max_points=MAX_POINTS), "glb", name)
    return Points(np.ascontiguousarray(points.xyz[:, [0, 2, 1]] * np.array([1, -1, 1], np.float32)), points.rgb)


def read_obj(content: bytes, name: str) -> Points:
    """Points on the surfaces of a Wavefront OBJ file with a colour at each vertex (`v x y z r g b`); its frame is kept.

    Raises:
        DataError: if it is damaged, too large, or has no colours: materials and textures are other files.
    """
    for pattern, limit in ((_VERTEX, MAX_POINTS), (_FACE, 2 * MAX_POINTS)):
        if (count := sum(1 for _ in pattern.finditer(content))) > limit:
            raise DataError(f"Expected at most {limit:,} vertices and faces in {name}, found {count:,} of one.")
    return _sampled(content, "obj", name)


def _sampled(content: bytes, kind: str, name: str) -> Points:
    try:
        scene = trimesh.load_scene(io.BytesIO(content), file_type=kind, skip_materials=kind == "obj")
        placed = _placed(scene)
        density = min(
            SAMPLES_PER_M2,
            MAX_SAMPLES / max(1e-9, sum(mesh.area for mesh in placed if isinstance(mesh, trimesh.Trimesh))),
        )
        parts = [_points(mesh, density) for mesh in placed]
    except DataError as error:
        raise DataError(f"{error} It is {name}.") from None
    # trimesh trusts its input: what it raises for a damaged file is whatever breaks first.
    except Exception as error:
        raise DataError(f"Expected a mesh in {name}, found a file that does not read: {_said(error)}.") from error
    if not parts:
        raise DataError(f"Expected a mesh in {name}, found none.")
    return Points(np.concatenate([part.xyz for part in parts]), np.concatenate([part.rgb for part in parts]))


def _placed(scene: trimesh.Scene) -> list[Geometry]:
    """Every mesh and cloud where the scene has it, in an order that depends on the file alone."""
    _check_textures(scene)
    shown = [scene.graph[node] for node in scene.graph.nodes_geometry]
    placed = []
    for matrix, number in sorted(((matrix.tolist(), number) for matrix, number in shown), key=str):
        geometry = scene.geometry[number].copy()
        geometry.apply_transform(np.array(matrix))
        if not np.isfinite(geometry.vertices).all():
            raise DataError("Expected finite coordinates in a mesh, found NaN or infinity.")
        placed.append(geometry)
    return placed


def _check_textures(scene: trimesh.Scene) -> None:
    images = {id(image): image for image in map(_texture, scene.geometry.values()) if image is not None}
    pixels = sum(image.width * image.height for image in images.values())
    if pixels > MAX_PIXELS or any(image.format not in ("PNG", "JPEG") for image in images.values()):
        raise DataError(f"Expected textures of at most {MAX_PIXELS:,} pixels, PNG or JPEG, found {pixels:,} pixels.")


def _texture(mesh: Geometry) -> Image.Image | None:
    material = getattr(mesh.visual, "material", None)
    image: Image.Image | None = getattr(material, "baseColorTexture", None)
    return image


def _points(mesh: Geometry, density: float) -> Points:
    """Points on a mesh's faces, `density` a square metre; a cloud's own."""
    if isinstance(mesh, trimesh.PointCloud):
        return Points(mesh.vertices.astype(np.float32), np.asarray(mesh.colors)[:, :3].astype(np.uint8))
    xyz_P3, face_P, weight_P3 = trimesh.sample.sample_surface(
        mesh, round(mesh.area * density), return_barycentric=True, seed=0
    )
    return Points(xyz_P3.astype(np.float32), _colours(mesh, mesh.faces[face_P], weight_P3))


def _colours(mesh: trimesh.Trimesh, corners_P3: NDArray[np.int64], weight_P3: FloatArray) -> NDArray[np.uint8]:
    """`(P, 3)`: the texture or the vertices' colours, weighted by how near each corner is."""
    visual = mesh.visual
    if isinstance(visual, ColorVisuals):
        if visual.kind != "vertex":
            raise DataError("Expected a colour at each vertex of a mesh, found none; a .glb carries its textures.")
        return _bytes(_weighted(visual.vertex_colors[:, :3], corners_P3, weight_P3))
    assert isinstance(visual, TextureVisuals)
    rgb_P3, image = np.full((len(corners_P3), 3), 255.0), _texture(mesh)
    if image is not None and visual.uv is not None:
        rgb_P3 = uv_to_interpolated_color(_weighted(visual.uv, corners_P3, weight_P3), image)[:, :3].astype(np.float64)
    factor = getattr(visual.material, "baseColorFactor", None)
    if factor is not None:
        rgb_P3 = rgb_P3 * np.asarray(factor)[:3] / 255
    return _bytes(rgb_P3)


def _weighted(values: NDArray[np.generic], corners_P3: NDArray[np.int64], weight_P3: FloatArray) -> FloatArray:
    """`(P, D)`: values of vertices `(V, D)` between the corners of a face."""
    mixed: FloatArray = (values[corners_P3].astype(np.float64) * weight_P3[..., None]).sum(axis=1)
    return mixed


def _bytes(rgb_P3: FloatArray) -> NDArray[np.uint8]:
    return np.asarray(np.rint(rgb_P3).clip(0, 255), np.uint8)


def _said(error: Exception) -> str:
    return f"{type(error).__name__} {str(error)[:80]}".strip()
