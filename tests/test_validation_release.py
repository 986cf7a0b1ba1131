"""The dataset for others: it loads with `datasets`, and our reader takes it back."""

import asyncio
import json

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from tiny_gate import SPLIT, World

from r1pipe.datasets import scene30k
from r1pipe.datasets.catalog import Catalog, Room
from r1pipe.datasets.draft import Rejection
from r1pipe.datasets.labels import LabelMap
from r1pipe.files import sha256
from r1pipe.synthesis.ledger import Ledger
from r1pipe.synthesis.prompts import Prompt
from r1pipe.synthesis.request import Reply, Request


async def pay(params):
    """Two requests, one of them blocked; both are charged for."""
    ledger = Ledger(params.ledger)
    replies = [Reply("<think>so</think>", None, 2000, 300), Reply(None, "blocked: SAFETY", 10, 0)]
    for number, (reply, dollars) in enumerate(zip(replies, (0.02, 0.001), strict=True)):
        request = Request.of(Prompt("", f"{number}", (), "v1"), params)
        await ledger.sent(request)
        await ledger.answered(request.key, reply, dollars)
    await ledger.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Passed the gate, with a draft that a filter rejects and a sample that the teacher refused."""
    folder = tmp_path_factory.mktemp("release")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        world = World(folder)
        world.drafts[2] = world.drafts[2].model_copy(update={"cot": "lamp"})
        world.drafts[0] = world.drafts[0].model_copy(update={"teacher": "gemini/gemini-2.5-pro", "prompt": "v1"})
        world.drafts[5:6] = []
        asyncio.run(pay(world.params.synthesize.gemini))
        refused = world.samples[5]
        world.rejects = [
            Rejection(
                id=refused.id,
                scene_id=refused.scene_id,
                teacher="gemini/gemini-2.5-pro",
                reason="blocked",
                detail="SAFETY",
            )
        ]
        world.validate()
    return world


def test_the_folder_loads_with_datasets(world, tmp_path):
    rows = load_dataset(str(world.params.paths.release), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in rows.items()} == {"train": 4, "validation": 3}
    situated = rows["validation"][2]
    assert situated["pose"] == {"position": [1.0, 1.0, 0.0], "rotation": [0.0, 0.0, 0.0, 1.0]}
    kept = [draft for draft in world.drafts if draft.split == "train" and draft.cot != "lamp"]
    assert [(row["scene_id"], row["question"], row["cot"]) for row in rows["train"]] == [
        (draft.scene_id, draft.question, draft.cot) for draft in kept
    ]


def test_the_reader_takes_back_the_samples_that_were_written(world):
    rooms = {
        scene_id: Room(SPLIT[scene_id], {o.id: o for o in scene.objects}, np.eye(4), (0.0, 0.0, 0.0))
        for scene_id, scene in world.scenes.items()
    }
    catalog = Catalog(SPLIT, rooms, LabelMap({}, {}))
    read = list(scene30k.read([world.params.paths.release / "validation.jsonl"], catalog))
    mended = [sample.model_copy(update={"id": "", "source": ""}) for sample in read]
    assert mended == [sample.model_copy(update={"id": "", "source": ""}) for sample in world.samples[6:9]]


def test_a_row_has_the_columns_of_the_released_scene_30k_first(world):
    line = (world.params.paths.release / "train.jsonl").read_text().splitlines()[0]
    assert list(json.loads(line))[:3] == ["scene_id", "question", "cot"]


def test_the_card_says_what_is_in_it_and_where_it_comes_from(world):
    folder = world.params.paths.release
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "other"
    for line in [
        "| train | 4 |",
        "| qa | 2 | 1 |",
        "| gemini/gemini-2.5-pro | v1 | 1 |",
        "By the ledger, gemini-2.5-pro answered 2 requests of 2010 prompt and 300 output tokens for $0.02, those",
        "| sqa3d | scannet | 1 | CC BY 4.0, on scans under the ScanNet terms of use |",
        "| `consistency` | 0.8 |",
        "| filter `format` | 1 |",
        "| the teacher: blocked | 1 |",
        f"| `train.jsonl` | `{sha256(folder / 'train.jsonl')}` |",
        f"| the drafts | `{sha256(world.params.paths.drafts)}` |",
    ]:
        assert line in body, line
