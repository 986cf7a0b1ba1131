"""ScanNet's label map: from what annotators wrote to NYU40 classes and to ScanRefer's 18."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from r1pipe.errors import DataError, MissingError

LABEL_MAP = "scannetv2-labels.combined.tsv"

SCANREFER_CLASSES = (
    *("cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk"),
    *("curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub"),
)
"""ScanRefer's classes 0..16; everything else is `others`, 17."""

OTHERS = len(SCANREFER_CLASSES)


@dataclass(frozen=True)
class LabelMap:
    """The columns `raw_category`, `nyu40id` and `nyu40class` of the published table."""

    ids: Mapping[str, int]
    """NYU40 id of a raw label."""

    classes: Mapping[str, str]
    """NYU40 class name of a raw label."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the tab-separated table.

        Raises:
            MissingError: if there is no such file.
            DataError: if a column is missing or an id is no number of 0..40.
        """
        if not path.is_file():
            raise MissingError(f"Expected ScanNet's label map at {path}, found no such file.")
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = {"raw_category", "nyu40id", "nyu40class"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"Expected a label map in {path}, found no column {', '.join(sorted(missing))}.")
            rows = list(reader)
        for number, row in enumerate(rows, 2):
            if not (row["nyu40id"] or "").isdecimal() or int(row["nyu40id"]) > 40:
                raise DataError(f"Expected nyu40id of 0..40 in {path}, line {number}, found {row['nyu40id']!r}.")
        ids = {row["raw_category"]: int(row["nyu40id"]) for row in rows}
        return cls(ids, {row["raw_category"]: row["nyu40class"] for row in rows})

    def nyu40(self, label: str) -> int:
        """The NYU40 id of a raw label; 0 where the table has none.

        ScanRefer writes underscores for blanks; some releases write the class itself (`night stand`) for the raw label.
        """
        label = label.replace("_", " ")
        return self.ids.get(label) or self.names.get(label, 0)

    @property
    def names(self) -> dict[str, int]:
        """The NYU40 id of each class name."""
        return {name: self.ids[raw] for raw, name in self.classes.items()}

    def scanrefer_class(self, label: str) -> int:
        """ScanRefer's class of a raw label, 0..17, as its official loader has it."""
        name = self.classes.get(label.replace("_", " "), "")
        return SCANREFER_CLASSES.index(name) if name in SCANREFER_CLASSES else OTHERS
