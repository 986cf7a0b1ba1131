"""Which benchmarks there are, how their files are called, and who reads them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from r1pipe.datasets import multi3drefer, nr3d, scanqa, scanrefer, scene30k, sqa3d, threedllm
from r1pipe.datasets.catalog import Catalog
from r1pipe.datasets.sample import Sample


class Source(NamedTuple):
    """One benchmark's files in `annotations/<source>/`."""

    patterns: tuple[str, ...]
    read: Callable[[Sequence[Path], Catalog], Iterator[Sample]]


SOURCES: dict[str, Source] = {
    "scanrefer": Source(("ScanRefer_filtered_*.json",), scanrefer.read),
    "nr3d": Source(("nr3d*.csv",), nr3d.read),
    "sr3d": Source(("sr3d*.csv",), nr3d.read),
    "multi3drefer": Source(("multi3drefer_*.json",), multi3drefer.read),
    # ScanQA's own test files publish no answers: test_w_obj, test_wo_obj.
    "scanqa": Source(tuple(f"ScanQA_v1.0_{split}.json" for split in ("train", "val", "test")), scanqa.read),
    "sqa3d": Source(("v1_balanced_questions_*.json", "v1_balanced_sqa_annotations_*.json"), sqa3d.read),
    "threedllm": Source(tuple(f"3d_llm_{kind}_*.json" for kind in threedllm.KINDS), threedllm.read),
    "scene30k": Source(("*.jsonl",), scene30k.read),
}


def annotation_files(folder: Path) -> dict[str, list[Path]]:
    """The files of each benchmark that is there, sorted."""
    found = {
        name: sorted({path for pattern in source.patterns for path in (folder / name).glob(pattern)})
        for name, source in SOURCES.items()
    }
    return {name: paths for name, paths in found.items() if paths}
