"""The dataset as others take it: JSONL in the released Scene-30K's format with a card, a folder for `datasets.load_dataset`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from r1pipe.datasets.licences import licence
from r1pipe.datasets.manifest import Kind
from r1pipe.datasets.scene30k import Chain
from r1pipe.files import sha256, whole, write_jsonl, write_text
from r1pipe.params.chains import Filters
from r1pipe.params.section import Split
from r1pipe.validation.figures import Figure

FILES: Mapping[Split, str] = MappingProxyType({"train": "train", "val": "validation"})
"""Our name of a split, and the hub's."""

_TEXTS, _STRING = {"list": "string"}, {"dtype": "string"}
_NUMBERS = {"list": "float64"}
_FEATURES: Mapping[str, dict[str, Any]] = MappingProxyType(
    {
        "scene_id": _STRING,
        "question": _STRING,
        "cot": _STRING,
        "task": _STRING,
        "answers": _TEXTS,
        "object_ids": {"list": "int32"},
        "pose": {"struct": [{"name": "position", **_NUMBERS}, {"name": "rotation", **_NUMBERS}]},
        "history": _TEXTS,
        "tags": _TEXTS,
        "id": _STRING,
        "source": _STRING,
        "teacher": _STRING,
        "prompt": _STRING,
    }
)
"""The columns of `Chain` as the hub describes them: without it a column that is empty at first would be guessed wrong."""

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class Made(NamedTuple):
    """A row, and of what kind of scans."""

    chain: Chain
    split: Split
    kind: Kind


@dataclass(frozen=True)
class Making:
    """How the rows came about, for the card."""

    filters: Filters
    rejects: Mapping[str, int]
    """Drafts by the filter that rejected them."""

    refusals: Mapping[str, int]
    """Samples without a draft, by the teacher's reason."""

    figures: Sequence[Figure]
    """What the filters find, where it was measured."""

    hashes: Mapping[str, str]
    """SHA-256 of what the rows were made from, by name."""

    costs: str
    """What the teacher cost, a sentence."""


def write_release(rows: Sequence[Made], making: Making, folder: Path) -> None:
    """Write `train.jsonl`, `validation.jsonl` and the card `README.md`, whole; a split without rows has no file."""
    with whole(folder) as draft:
        draft.mkdir(parents=True)
        for split, name in FILES.items():
            chains = [row.chain for row in rows if row.split == split]
            if chains:
                write_jsonl(draft / f"{name}.jsonl", chains)
        write_text(draft / "README.md", _card(rows, making, draft))


def _card(rows: Sequence[Made], making: Making, folder: Path) -> str:
    environment = Environment(
        loader=PackageLoader("r1pipe", "validation"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )  # fmt: skip
    names = [name for name in FILES.values() if (folder / f"{name}.jsonl").is_file()]
    sources = Counter((row.chain.source or "unknown", row.kind) for row in rows)
    return environment.get_template("card.md.j2").render(
        front=yaml.safe_dump(_front(rows, names, sources), sort_keys=False),
        splits={name: sum(FILES[row.split] == name for row in rows) for name in names},
        tasks=_by_split((row.chain.task, row.split) for row in rows),
        types=_by_split((f"{row.chain.task}: {tag}", row.split) for row in rows for tag in row.chain.tags),
        sources=[(source, kind, count, licence(source, kind)) for (source, kind), count in sorted(sources.items())],
        teachers=sorted(Counter((row.chain.teacher or "unknown", row.chain.prompt or "none") for row in rows).items()),
        making=making,
        filters=making.filters.model_dump(),
        files={f"{name}.jsonl": sha256(folder / f"{name}.jsonl") for name in names},
    )


def _front(rows: Sequence[Made], names: Sequence[str], sources: Mapping[tuple[str, Kind], int]) -> dict[str, Any]:
    """What the hub reads."""
    embedded = all(kind == "procedural" for _, kind in sources)
    licence = {"license": "apache-2.0"} if embedded else {"license": "other", "license_name": "licences-of-the-sources"}
    return {
        **licence,
        "pretty_name": "Scene-30K, made by r1pipe",
        "language": ["en"],
        "task_categories": ["visual-question-answering", "question-answering"],
        "tags": ["3d", "chain-of-thought", "point-cloud"],
        "size_categories": [next((size for most, size in _SIZES if len(rows) < most), "n>1M")],
        "configs": [
            {"config_name": "default", "data_files": [{"split": name, "path": f"{name}.jsonl"} for name in names]}
        ],
        "dataset_info": {"features": [{"name": name, **kind} for name, kind in _FEATURES.items()]},
    }


def _by_split(pairs: Any) -> dict[str, dict[str, int]]:
    counts: Counter[tuple[str, Split]] = Counter(pairs)
    return {
        name: {hub: counts[name, split] for split, hub in FILES.items()}
        for name in sorted({name for name, _ in counts})
    }
