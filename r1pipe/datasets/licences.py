"""Under which terms data may be passed on, by what their authors' own repositories say."""

from collections.abc import Mapping
from types import MappingProxyType

from r1pipe.datasets.manifest import Kind

_EMBEDDED = "written by r1pipe about its own procedural rooms: Apache-2.0"
_UNKNOWN = "see the terms of its authors"
LICENCES: Mapping[str, str] = MappingProxyType(
    {
        "scanrefer": "CC BY-NC-SA 3.0, on scans under the ScanNet terms of use",
        "scan2cap": "descriptions of ScanRefer: CC BY-NC-SA 3.0, on scans under the ScanNet terms of use",
        "scanqa": "CC BY-NC-SA 3.0, on scans under the ScanNet terms of use",
        "sqa3d": "CC BY 4.0, on scans under the ScanNet terms of use",
        "3dllm": "MIT, on scans under the ScanNet terms of use",
        "scannet": "made of ScanNet's annotations: ScanNet terms of use, no redistribution",
    }
)
"""Of each source; sources that are not here say nothing of their texts."""


def licence(source: str, kind: Kind) -> str:
    """The terms of a source's texts about scans of this kind."""
    return _EMBEDDED if kind == "procedural" else LICENCES.get(source, _UNKNOWN)
