"""The package: what goes in, the same bytes for the same content, and a Bento that BentoML can read."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tiny_serving import SCENE, write_room

from r1pipe.errors import MissingError
from r1pipe.files import sha256, write_json, write_jsonl, write_text
from r1pipe.params import Params
from r1pipe.serving.bundle import Bundle, unpack
from r1pipe.serving.card import card, headlines
from r1pipe.serving.lineage import stages
from r1pipe.serving.package import content_hash, package, write_archive

ROOT = Path(__file__).parents[1]
EM = {"value": 61.25, "low": 50.0, "high": 70.0, "n": 40}
SCORES = {"sft": {}, "grpo": {"qa": {"em": EM, "bleu_1": EM}}, "blind": {"qa": {"em": EM | {"value": 12.0}}}}
PROVENANCE = {
    "protocols": {"qa": {"name": "scanqa", "rules": "exact match"}},
    "intervals": {"method": "95 % bootstrap", "resamples": 1000},
}
SAMPLES = [{"source": "scanqa", "task": "qa"}, {"source": "3dllm", "task": "planning"}]


def run_folder(root: Path, params: Params) -> Params:
    """What the stages before `package` leave, and parameters whose paths point there."""
    write_room(root, params)
    for name in ("models/grpo/config.json", "models/backbones/clip/config.json", "reports/index.html"):
        write_text(root / name, "{}")
    write_json(root / "reports/metrics/evaluate.json", SCORES)
    write_json(root / "reports/metrics/provenance.json", PROVENANCE)
    write_jsonl(root / "data/samples/train.jsonl", SAMPLES)
    paths = {name: path and root / path for name, path in params.paths.model_dump().items()}
    return params.model_copy(update={"paths": params.paths.model_copy(update=paths)})


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """Two packages of the same content, made at the same time in two places."""
    params, home = Params.load(ROOT / "params.yaml"), tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "r1pipe", home / "r1pipe")
    for name in ("params.yaml", "requirements.lock", "bentofile.yaml", "LICENSE"):
        shutil.copyfile(ROOT / name, home / name)
    roots = [tmp_path_factory.mktemp(name) for name in ("first", "second")]

    def make(root):
        run = run_folder(root, params)
        package(run, [SCENE], home=home)
        return run.paths.bento

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(make, roots))


def test_two_packages_of_the_same_content_have_the_same_bytes(packaged):
    first, second = packaged
    assert sha256(first) == sha256(second)


def test_a_package_holds_the_model_its_card_and_its_lineage(packaged, tmp_path):
    bundle = Bundle(unpack(packaged[0], tmp_path) / "src")
    lineage = bundle.lineage()
    assert (bundle.features / f"{SCENE}.safetensors").is_file()
    assert (bundle.features / "texts/texts.json").is_file()
    assert (bundle.scenes / f"{SCENE}.safetensors").is_file()
    assert (bundle.root / "r1pipe/serving/service.py").is_file()
    assert Params.load(bundle.params) == Params.load(ROOT / "params.yaml")
    assert lineage["model"] == {"config.json": sha256(bundle.model / "config.json")}
    assert lineage["metrics"] == SCORES
    assert lineage["backbones"] == {"clip/config.json": sha256(bundle.backbones / "clip/config.json")}
    assert lineage["data"]["sources"] == {"scanqa": 1}, "planning is not trained for"
    assert set(lineage["data"]["samples"]) == {"train.jsonl"}
    assert (bundle.root / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert bundle.card.read_text() == card(lineage) == (bundle.root.parent / "README.md").read_text()


@pytest.fixture(scope="module")
def facts(packaged, tmp_path_factory):
    return Bundle(unpack(packaged[0], tmp_path_factory.mktemp("facts")) / "src").lineage()


def test_the_card_says_how_good_the_model_is_and_what_it_may_be_used_for(facts):
    text = card(facts)
    assert f"# r1:{facts['version']}\n" in text
    assert "| task | metric | n | `grpo` | `sft` | `blind` |\n| --- | --- | ---: | ---: | ---: | ---: |\n" in text
    assert "| qa | em | 40 | 61.2 [50.0, 70.0] |  | 12.0 [50.0, 70.0] |\n" in text
    assert "bleu_1" not in text
    assert "| scanqa | 1 | written by r1pipe about its own procedural rooms: Apache-2.0 |" in text
    assert "trained for captioning, grounding, qa, not for situated, dialogue, planning, description." in text


def test_the_card_of_a_model_made_of_others_and_of_real_scans_says_whose_terms_hold(facts):
    facts = json.loads(json.dumps(facts))
    facts["data"]["kind"] = "scannet"
    facts["params"]["model"] |= {"language": "Qwen/Qwen2.5-VL-7B-Instruct", "revision": "cc59489"}
    text = card(facts)
    assert "Language model: Qwen/Qwen2.5-VL-7B-Instruct (cc59489)." in text
    assert "made from Qwen/Qwen2.5-VL-7B-Instruct; the terms" in text
    assert "terms of use forbid to pass them on" in text
    assert "CC BY-NC-SA 3.0" in text


def test_a_package_holds_no_path_of_this_machine(packaged, tmp_path):
    folder = unpack(packaged[0], tmp_path)
    ours = [path for path in folder.rglob("*") if path.is_file() and "r1pipe" not in path.parts]
    assert [path for path in ours if str(ROOT).encode() in path.read_bytes()] == []
    assert "__pycache__" not in {path.name for path in folder.rglob("*")}


def test_a_missing_input_stops_the_package_with_its_path(tmp_path):
    params = run_folder(tmp_path, Params.load(ROOT / "params.yaml"))
    with pytest.raises(MissingError, match="room9999"):
        package(params, ["room9999"], home=ROOT)
    assert not params.paths.bento.exists()


def test_an_archive_depends_on_paths_and_contents_alone(tmp_path):
    digests = []
    for i, order in enumerate((("a", "b"), ("b", "a"))):
        folder = tmp_path / str(i)
        for name in order:
            write_text(folder / name, name)
            os.utime(folder / name, (time.time() - i * 1000, i))
        write_archive(folder, tmp_path / f"{i}.tar")
        digests.append((content_hash(folder), sha256(tmp_path / f"{i}.tar")))
    assert digests[0] == digests[1]
    with tarfile.open(tmp_path / "0.tar") as tar:
        assert [(entry.name, entry.uid, entry.mtime) for entry in tar] == [("a", 0, 0), ("b", 0, 0)]


def test_the_lineage_lists_every_stage_but_its_own(tmp_path):
    lock = tmp_path / "dvc.lock"
    out = {"path": "models/bento.tar", "md5": "1"}
    deps = [{"path": "data/cot", "md5": "2"}]
    lock.write_text(json.dumps({"stages": {"package": {"outs": [out]}, "sft": {"cmd": "x", "deps": deps}}}))
    assert stages(lock, but=Path("models/bento.tar")) == {"sft": {"data/cot": "2"}}
    assert stages(tmp_path / "none", but=Path("models/bento.tar")) == {}


def test_headlines_are_what_was_measured():
    assert [(row["task"], row["metric"], row["n"]) for row in headlines(SCORES)] == [("qa", "em", 40)]


@pytest.mark.slow
def test_an_imported_package_answers_where_the_repository_is_not(tmp_path):
    archive = ROOT / "models/bento.tar"
    if not archive.is_file():
        pytest.skip("needs models/bento.tar, which `make run` makes")
    (tmp_path / "empty").mkdir()
    venv.create(tmp_path / "venv")
    # The packages of this environment without its path files, one of which is the repository's.
    ours, theirs = (
        Path(sysconfig.get_path("purelib", vars={"base": root})) for root in (sys.prefix, str(tmp_path / "venv"))
    )
    (theirs / "packages.pth").write_text(f"{ours}\n")
    python = tmp_path / "venv/bin/python"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    options = {"cwd": tmp_path / "empty", "env": environment | {"BENTOML_HOME": str(tmp_path / "home")}}
    assert subprocess.run([python, "-c", "import r1pipe"], capture_output=True, **options).returncode == 1
    subprocess.run([python, "-m", "bentoml", "import", archive], check=True, **options)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen([python, "-m", "bentoml", "serve", "r1", "--port", str(port)], **options)
    try:
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300)
        scene_id = _first(client, server)["scene_id"]
        answer = client.post("/answer", json={"scene_id": scene_id, "question": "what color is the door?"}).json()
        page = client.get("/ui/")
    finally:
        server.terminate()
        server.wait()
    assert answer["answer"]
    assert page.status_code == 200
    assert list((tmp_path / "empty").iterdir()) == []


def _first(client, server):
    """The first room of a server that is on its way up."""
    while server.poll() is None:
        try:
            if (found := client.get("/scenes")).is_success:
                return found.json()[0]
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"the server ended with status {server.returncode}")
