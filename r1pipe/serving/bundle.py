"""What a server serves: the files that stage `package` puts together, found again at serving time.

Inside a Bento the bundle is the folder that holds this package. In the repository it is `models/bento.tar`, unpacked once
into `.work/serve/<hash of the archive>/`.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1pipe.errors import DataError, MissingError, ParamsError
from r1pipe.files import read_json, sha256, whole
from r1pipe.params import Params

LINEAGE = "lineage.json"
SOURCES = "src"
"""Where BentoML keeps a Bento's own files."""


@dataclass(frozen=True)
class Bundle:
    """A served model's files, in the same places as in the repository."""

    root: Path

    @property
    def params(self) -> Path:
        """The parameters that made the model."""
        return self.root / "params.yaml"

    @property
    def model(self) -> Path:
        """The tuned model."""
        return self.root / "models" / "grpo"

    @property
    def backbones(self) -> Path:
        """The frozen encoders."""
        return self.root / "models" / "backbones"

    @property
    def features(self) -> Path:
        """Features of the rooms that can be asked about."""
        return self.root / "data" / "features"

    @property
    def scenes(self) -> Path:
        """Their clouds, to look at."""
        return self.root / "data" / "scenes"

    @property
    def views(self) -> Path:
        """What their candidate cameras see."""
        return self.root / "data" / "views"

    @property
    def report(self) -> Path:
        """The report on the model."""
        return self.root / "reports" / "index.html"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.root / "MODEL_CARD.md"

    def lineage(self) -> dict[str, Any]:
        """What the model was made from.

        Raises:
            MissingError: if the bundle is not whole.
        """
        lineage: dict[str, Any] = read_json(self.root / LINEAGE)
        return lineage

    def parameters(self) -> Params:
        """Those of the run that made the model.

        Raises:
            DataError: if they are not what this version of the code reads.
        """
        try:
            return Params.load(self.params)
        except ParamsError as error:
            raise DataError(
                f"Expected a model that this version of r1pipe packaged; `dvc repro package` packages it anew. {error}"
            ) from None


def find(home: Path, *, archive: Path = Path("models/bento.tar"), work: Path = Path(".work/serve")) -> Bundle:
    """The bundle to serve from `home`, the folder that holds the package `r1pipe`.

    Raises:
        MissingError: if neither a bundle nor a packaged model is there.
    """
    if (home / LINEAGE).is_file():
        return Bundle(home)
    if not (home / archive).is_file():
        raise MissingError(f"Expected the packaged model at {home / archive}, found none; `make run` makes it.")
    return Bundle(unpack(home / archive, home / work) / SOURCES)


def unpack(archive: Path, work: Path) -> Path:
    """The folder `work/<hash>` with the archive's files; unpacked only the first time.

    Raises:
        DataError: if it is not a tar archive, or holds a path that leads outside.
    """
    folder = work / sha256(archive)[:16]
    if folder.is_dir():
        return folder
    try:
        with whole(folder) as draft, tarfile.open(archive) as tar:
            tar.extractall(draft, filter="data")
    except tarfile.TarError as error:
        raise DataError(f"Expected a Bento in {archive}, found an archive that does not unpack: {error}.") from None
    return folder
