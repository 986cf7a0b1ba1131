"""The HTTP API answers about rooms known and uploaded, and refuses everything else in one sentence."""

import io
import json
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from fastapi.testclient import TestClient
from scan_files import cloud, npz
from tiny_serving import QUESTIONS, SCENE, client_of, scene, served_model

from r1pipe.errors import DataError, MissingError
from r1pipe.geometry import iou
from r1pipe.models.r1.hearing import Completion
from r1pipe.serving import api, guards
from r1pipe.serving.answer import Answer, Ask
from r1pipe.serving.batching import Said
from r1pipe.serving.bundle import LINEAGE, Bundle, find, unpack
from r1pipe.serving.rooms import MAX_UPLOADS

ASK = {"scene_id": SCENE, "question": QUESTIONS[0]}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    return served_model(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def client(served):
    return client_of(served)


@pytest.mark.slow
def test_the_supervisor_of_the_server_imports_neither_the_model_nor_the_page():
    heavy = "{'torch', 'transformers', 'gradio'} & sys.modules.keys()"
    code = f"import sys, r1pipe.serving.service; print({heavy} or 'neither')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["neither"]


def ply(header="", body=b""):
    head = "ply\nformat binary_little_endian 1.0\n" + header + "end_header\n"
    return head.encode() + body


def test_an_answer_carries_reasoning_boxes_views_and_timings(client, served):
    response = client.post("/answer", json=ASK)
    answer = response.json()
    assert response.status_code == 200, answer
    assert (answer["thinking"], answer["answer"]) == ("the chair <obj_002> is red.", "red <obj_001>")
    assert iou(answer["boxes"], served.features(SCENE).object_boxes[1:2]).item() == pytest.approx(1)
    assert [thing["id"] for thing in answer["objects"]] == ["<obj_002>", "<obj_001>"]
    assert sum(view["chosen"] for view in answer["views"]) == 2
    assert np.shape(answer["views"][0]["camera"]) == (4, 4)
    assert answer["warnings"] == []
    assert set(answer["timings"]) == {"received", "waited", "answered", "looked"}


def test_what_the_model_was_not_trained_for_is_said(client):
    answer = client.post("/answer", json=ASK | {"task": "planning"}).json()
    assert any("not for planning" in warning for warning in answer["warnings"])
    assert any("grammar" in warning for warning in answer["warnings"])


def test_an_answer_that_names_what_was_not_detected_says_so(served):
    completion = Completion("<think>the lamp <obj_002>, <obj_805></think><answer><obj_077></answer>", 9)
    answer = served.finish(Ask(scene_id=SCENE, question=QUESTIONS[0]), Said(completion, 0.0, 0.0))
    assert answer.warnings == ["The completion names objects that were not detected: <obj_805>, <obj_077>."]
    assert (answer.boxes, [thing.id for thing in answer.objects]) == ([], ["<obj_002>"])


@pytest.mark.parametrize(
    ("path", "body", "task"),
    [
        ("/describe", {"scene_id": SCENE}, "description"),
        ("/locate", {"scene_id": SCENE, "question": "the chair."}, "grounding"),
        ("/caption", {"scene_id": SCENE, "object": 2}, "captioning"),
        ("/chat", ASK | {"history": [QUESTIONS[0], "red"]}, "dialogue"),
        ("/plan", ASK, "planning"),
        ("/answer", ASK | {"pose": {"position": [0, 0, 0], "rotation": [0, 0, 0, 1]}}, "situated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verb_is_an_answer_of_its_task(client, path, body, task):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.json()["task"] == task


def test_scenes_and_the_model_are_listed(client):
    assert client.get("/scenes").json()[0] == {"scene_id": SCENE, "num_objects": 5, "uploaded": False}
    assert client.get("/model").json() == {"model": "r1:test", "lineage": {"name": "r1"}}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (ASK | {"scene_id": "scene9999_00"}, 404, "'scene9999_00'"),
        (ASK | {"scene_id": "../../etc/passwd"}, 404, "known scenes"),
        (ASK | {"question": ""}, 422, "question"),
        (ASK | {"task": "cooking"}, 422, "task"),
        (ASK | {"colour": 1}, 422, "colour"),
        (ASK | {"question": "describe <obj_099>."}, 422, "<obj_099>"),
        (ASK | {"history": ["hello"]}, 422, "turns"),
        ([1], 422, "question"),
    ],
    ids=[
        "unknown scene",
        "path as scene",
        "empty",
        "unknown task",
        "unknown key",
        "unknown object",
        "half a turn",
        "list",
    ],
)
def test_a_bad_question_is_refused_in_a_sentence(client, body, status, words):
    response = client.post("/answer", json=body)
    assert response.status_code == status
    assert words in response.json()["detail"]
    assert response.json()["detail"].endswith(".")


def test_a_body_that_is_no_json_is_refused(client):
    response = client.post("/answer", content=b"{")
    assert (response.status_code, response.json()["detail"][:13]) == (422, "Expected JSON")


def test_an_uploaded_scan_is_answered_about(client):
    response = client.post("/answer", files={"scene": ("room.npz", cloud())}, data={"question": QUESTIONS[0]})
    assert response.status_code == 200, response.text
    scene_id = response.json()["scene_id"]
    assert scene_id.startswith("scan-")
    assert {"scene_id": scene_id, "num_objects": 5, "uploaded": True} in client.get("/scenes").json()
    assert client.post("/answer", json=ASK | {"scene_id": scene_id}).status_code == 200


VERTEX = "".join(f"property float {n}\n" for n in "xyz") + "".join(
    f"property uchar {n}\n" for n in ("red", "green", "blue")
)
BAD_SCANS = {
    "another kind": ("room.fbx", b"room", ".ply, .npz"),
    "no header": ("room.ply", b"solid", "PLY header"),
    "more vertices than bytes": ("room.ply", ply(f"element vertex 4000000000\n{VERTEX}"), "bytes"),
    "no archive": ("room.npz", b"zip?", "NumPy archive"),
    "no colours": ("room.npz", npz(xyz=np.zeros((200, 3))), "xyz and rgb"),
    "pickled": ("room.npz", npz(xyz=np.array([[{}] * 3] * 3, object), rgb=np.zeros((3, 3))), "Expected numbers in xyz"),
    "millimetres": ("room.npz", npz(xyz=np.random.default_rng(0).uniform(0, 4000, (200, 3)), rgb=np.zeros((200, 3))), "metres"),
    "infinite": ("room.npz", npz(xyz=np.full((200, 3), np.inf), rgb=np.zeros((200, 3))), "finite"),
    "five points": ("room.npz", npz(xyz=np.zeros((5, 3)), rgb=np.zeros((5, 3))), "points"),
    "colours of 16 bits": ("room.npz", npz(xyz=scene().xyz, rgb=np.full((3000, 3), 65535)), "0..255"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SCANS)
def test_a_bad_scan_is_refused_in_a_sentence(client, name):
    filename, content, words = BAD_SCANS[name]
    response = client.post("/answer", files={"scene": (filename, content)}, data={"question": QUESTIONS[0]})
    assert response.status_code == 422
    assert words in response.json()["detail"]
    assert filename in response.json()["detail"] and "/tmp" not in response.json()["detail"]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_request_that_is_too_large_is_refused(client, chunked):
    body = json.dumps(ASK | {"history": ["x" * guards.MAX_JSON_BYTES, ""]}).encode()
    content = iter([body[: len(body) // 2], body[len(body) // 2 :]]) if chunked else body
    response = client.post("/answer", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "1,000,000 bytes" in response.json()["detail"]


def test_a_model_that_is_still_loading_says_so():
    assert TestClient(api.create_app()).get("/scenes").status_code == 503


def test_old_uploads_are_forgotten(tmp_path):
    served = served_model(tmp_path)
    ids = [served.add(cloud(500 + i), "room.npz") for i in range(MAX_UPLOADS + 1)]
    assert served.scene_ids() == [SCENE, *ids[1:]]
    with pytest.raises(MissingError, match=ids[0]):
        served.answer(Ask(scene_id=ids[0], question=QUESTIONS[0]))


def test_a_stream_grows_and_ends_with_the_answer(served):
    *parts, last = served.stream(Ask(scene_id=SCENE, question=QUESTIONS[0]))
    assert [len(part) for part in parts] == sorted(len(part) for part in parts)
    assert isinstance(last, Answer)


def archive(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_the_packaged_model_is_found_unpacked_and_within_a_bento(tmp_path):
    (tmp_path / "models").mkdir()
    archive(tmp_path / "models/bento.tar", {f"src/{LINEAGE}": b"{}", "bento.yaml": b""})
    bundle = find(tmp_path)
    assert bundle.lineage() == {}
    assert find(bundle.root) == bundle
    with pytest.raises(MissingError, match="make run"):
        find(tmp_path / "models")


def test_a_package_of_another_version_is_to_be_made_anew(tmp_path):
    (tmp_path / "params.yaml").write_text("base: {seed: 0, threads: 1}\n")
    with pytest.raises(DataError, match=r"`dvc repro package` packages it anew\. .*grpo: field required"):
        Bundle(tmp_path).parameters()


def test_an_archive_that_leads_outside_is_refused(tmp_path):
    path = archive(tmp_path / "bento.tar", {"../outside": b""})
    with pytest.raises(DataError, match="does not unpack"):
        unpack(path, tmp_path / "work")
    assert not (tmp_path / "outside").exists()
