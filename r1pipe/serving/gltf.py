"""What is taken from a `.glb` file before its promises are believed: geometry, base colours, textures; nothing else.

The subset of glTF 2.0 that is left holds no path, no extension and no count that the file does not pay for in bytes.
"""

import struct
from collections import Counter
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r1pipe.errors import DataError
from r1pipe.files import explain

MAX_NODES = 2_000
"""And meshes, parts, materials and images; their frames are found by walking up."""

_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")
_MAX_JSON = 10_000_000
_COMPONENT_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
_COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}

Index = Annotated[int, Field(ge=0, le=10_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Buffer(_Part):
    byteLength: Count  # noqa: N815 (the names are glTF's)


class _View(_Part):
    buffer: Literal[0]
    byteOffset: Count = 0  # noqa: N815
    byteLength: Count  # noqa: N815
    byteStride: Annotated[int, Field(ge=4, le=252)] | None = None  # noqa: N815


class _Accessor(_Part):
    bufferView: Index  # noqa: N815
    byteOffset: Count = 0  # noqa: N815
    componentType: Literal[5120, 5121, 5122, 5123, 5125, 5126]  # noqa: N815
    count: Count
    type: Literal["SCALAR", "VEC2", "VEC3", "VEC4"]

    @property
    def num_bytes(self) -> int:
        return self.count * _COMPONENTS[self.type] * _COMPONENT_BYTES[self.componentType]


class _Attributes(_Part):
    POSITION: Index
    COLOR_0: Index | None = None
    TEXCOORD_0: Index | None = None


class _Primitive(_Part):
    attributes: _Attributes
    indices: Index | None = None
    material: Index | None = None
    mode: Literal[0, 4, 5] = 4
    """Points, triangles, a strip of triangles."""


class _Mesh(_Part):
    primitives: Annotated[tuple[_Primitive, ...], Field(max_length=MAX_NODES)]


class _Node(_Part):
    mesh: Index | None = None
    children: tuple[Index, ...] | None = None
    matrix: Annotated[tuple[Number, ...], Field(min_length=16, max_length=16)] | None = None
    translation: tuple[Number, Number, Number] | None = None
    rotation: tuple[Number, Number, Number, Number] | None = None
    scale: tuple[Number, Number, Number] | None = None


class _Scene(_Part):
    nodes: tuple[Index, ...] = ()


class _Reference(_Part):
    index: Index


class _Colour(_Part):
    baseColorFactor: tuple[Number, Number, Number, Number] | None = None  # noqa: N815
    baseColorTexture: _Reference | None = None  # noqa: N815


class _Material(_Part):
    pbrMetallicRoughness: _Colour = _Colour()  # noqa: N815


class _Texture(_Part):
    source: Index | None = None


class _Image(_Part):
    bufferView: Index  # noqa: N815
    mimeType: Literal["image/png", "image/jpeg"]  # noqa: N815


class _Document(_Part):
    buffers: Annotated[tuple[_Buffer, ...], Field(max_length=1)] = ()
    bufferViews: tuple[_View, ...] = ()  # noqa: N815
    accessors: tuple[_Accessor, ...] = ()
    meshes: Annotated[tuple[_Mesh, ...], Field(max_length=MAX_NODES)] = ()
    nodes: Annotated[tuple[_Node, ...], Field(max_length=MAX_NODES)] = ()
    scenes: Annotated[tuple[_Scene, ...], Field(max_length=100)] = ()
    scene: Annotated[int, Field(ge=0, le=99)] = 0
    materials: Annotated[tuple[_Material, ...], Field(max_length=MAX_NODES)] = ()
    textures: Annotated[tuple[_Texture, ...], Field(max_length=MAX_NODES)] = ()
    images: Annotated[tuple[_Image, ...], Field(max_length=MAX_NODES)] = ()

    def num_vertices(self) -> int:
        """Vertices, or a third of the indices, of every mesh, once in the file and as often as nodes show it."""
        meshes = [sum(self._size(primitive) for primitive in mesh.primitives) for mesh in self.meshes]
        return sum(meshes) + sum(meshes[node.mesh] for node in self.nodes if node.mesh is not None)

    def is_forest(self) -> bool:
        """Whether no node has two parents: who walks along every edge sees each node once."""
        return max(Counter(child for node in self.nodes for child in node.children or ()).values(), default=0) <= 1

    def _size(self, primitive: _Primitive) -> int:
        indices = 0 if primitive.indices is None else self.accessors[primitive.indices].count
        return max(self.accessors[primitive.attributes.POSITION].count, indices // 3)


class _Chunks(NamedTuple):
    json: bytes
    binary: bytes


def harmless(content: bytes, name: str, *, max_points: int) -> bytes:
    """The same `.glb` with what is listed here alone, once it is seen to fit in memory.

    Raises:
        DataError: if it is no glTF 2.0 in one file, refers to what it does not hold, or holds too much.
    """
    chunks = _chunks(content, name)
    try:
        document = _Document.model_validate_json(chunks.json)
        num_vertices = document.num_vertices()
    except ValidationError as error:
        raise DataError(f"Expected glTF in {name}, found another document: {explain(error)}.") from None
    except IndexError:
        raise DataError(f"Expected glTF in {name}, found a reference to what the file does not hold.") from None
    if not document.is_forest():
        raise DataError(f"Expected one parent a node in {name}, found a node with several.")
    if num_vertices > max_points:
        raise DataError(f"Expected at most {max_points:,} vertices in {name}, found {num_vertices:,}.")
    promised = max(
        sum(view.byteLength for view in document.bufferViews),
        sum(accessor.num_bytes for accessor in document.accessors),
    )
    if promised > 4 * len(content):
        raise DataError(f"Expected arrays of at most {4 * len(content):,} bytes in {name}, found {promised:,}.")
    return _joined(document.model_dump_json(exclude_none=True).encode(), chunks.binary)


def _chunks(content: bytes, name: str) -> _Chunks:
    """The JSON and the binary chunk, in this order."""
    found: dict[bytes, bytes] = {}
    if len(content) >= _HEADER.size and _HEADER.unpack_from(content)[:2] == (b"glTF", 2):
        offset = _HEADER.size
        while offset + _CHUNK.size <= len(content) and len(found) < 2:
            length, kind = _CHUNK.unpack_from(content, offset)
            offset += _CHUNK.size
            found.setdefault(kind, content[offset : offset + length])
            offset += length
    if not 0 < len(found.get(b"JSON", b"")) <= _MAX_JSON:
        raise DataError(f"Expected a glTF 2.0 file with up to {_MAX_JSON:,} bytes of JSON in {name}, found none.")
    return _Chunks(found[b"JSON"], found.get(b"BIN\0", b""))


def _joined(text: bytes, binary: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = _CHUNK.pack(len(text), b"JSON") + text + _CHUNK.pack(len(binary), b"BIN\0") + binary
    return _HEADER.pack(b"glTF", 2, _HEADER.size + len(chunks)) + chunks
