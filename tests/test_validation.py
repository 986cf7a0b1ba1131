"""The gate: each defect that is planted stops it, by its name; clean data pass, with the same bytes each time."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from r1pipe.datasets import Pose, Sample
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.manifest import File, Manifest, Root, SceneEntry
from r1pipe.errors import GateError
from r1pipe.files import read_jsonl, write_jsonl
from r1pipe.geometry import Box
from r1pipe.params import Params
from r1pipe.response import compose
from r1pipe.scenes import Scene, SceneObject
from r1pipe.stages import validate
from r1pipe.validation.evidence import Extent, samples_table
from r1pipe.validation.filters import fault_figures, reject_reason, similarity, steps
from r1pipe.validation.leaks import leaks

PARAMS = Params.load(Path(__file__).parents[1] / "params.yaml")
SPLIT = {"scene0000_00": "train", "scene0000_01": "train", "scene0011_00": "val", "scene0707_00": "test"}


def room(scene_id, width=0.5):
    objects = tuple(
        SceneObject(i, label, nyu40, Box(*box))
        for i, (label, nyu40, box) in enumerate(
            [
                ("chair", 5, (1.0, 1.0, 0.5, width, 0.5, 1.0)),
                ("table", 7, (2.5, 1.0, 0.4, 1.0, 0.6, 0.8)),
                ("lamp", 35, (2.5, 1.0, 1.0, 0.2, 0.2, 0.4)),
                ("bed", 4, (2.0, 3.0, 0.3, 1.5, 2.0, 0.6)),
            ]
        )
    )
    corners = np.array([[x, y, z] for x in (0, 4) for y in (0, 4.2) for z in (0, 2.4)], np.float32)
    return Scene(scene_id, corners, np.zeros((8, 3), np.uint8), np.full(8, -1, np.int32), objects)


def questions(scene, split):
    chair, table = scene.objects[:2]
    shared = {"scene_id": scene.id, "split": split}
    return [
        Sample(
            id=f"scanqa-{scene.id}-0", task="qa", question="what color is the chair?", answers=("red",), source="scanqa",
            object_ids=(chair.id,), boxes=(chair.box,), **shared,
        ),
        Sample(
            id=f"scanrefer-{scene.id}-1", task="grounding", question="the table beside the chair", source="scanrefer",
            object_ids=(table.id,), boxes=(table.box,), **shared,
        ),
        Sample(
            id=f"sqa3d-{scene.id}-2", task="situated", question="what is on my left?", answers=("lamp",), source="sqa3d",
            pose=Pose(position=(1.0, 1.0, 0.0), rotation=(0.0, 0.0, 0.0, 1.0)), **shared,
        ),
    ]  # fmt: skip


def draft(sample):
    cot = {
        "qa": "<think>chair <obj_000> red</think><answer>red</answer>",
        "grounding": "<answer><obj_001></answer>",
        "situated": "<think>left <obj_002> lamp</think><answer>lamp</answer>",
    }[sample.task]
    second = None if sample.task == "grounding" else sample.answers[0]
    shared = sample.model_dump(include={"id", "scene_id", "question", "task", "answers", "split"})
    return Draft(**shared, cot=cot, teacher="scripted", second_answer=second)


class World:
    """Everything that stage `validate` reads, to be spoilt."""

    def __init__(self, folder):
        self.params = PARAMS.model_copy(
            update={
                "think": PARAMS.think.model_copy(update={"grounding": False, "captioning": False}),
                "paths": PARAMS.paths.model_copy(
                    update={
                        "manifest": folder / "manifest.json",
                        "scenes": folder / "scenes",
                        "samples": folder / "samples",
                        "drafts": folder / "cot" / "drafts.jsonl",
                        "cot": folder / "cot" / "validated",
                        "data_docs": folder / "reports" / "data_docs",
                        "metrics": folder / "reports" / "metrics",
                    }
                ),
            }
        )
        self.split = dict(SPLIT)
        # A re-scan has the same furniture; the other rooms have their own.
        widths = dict(zip(SPLIT, (0.5, 0.5, 0.6, 0.7), strict=True))
        self.scenes = {scene_id: room(scene_id, width) for scene_id, width in widths.items()}
        self.samples = [s for scene in self.scenes.values() for s in questions(scene, SPLIT[scene.id])]
        self.drafts = [draft(s) for s in self.samples if s.split != "test"]

    def change(self, index, **update):
        self.samples[index] = self.samples[index].model_copy(update=update)

    def validate(self):
        paths = self.params.paths
        file = File(path="scans/a.ply", size=1, sha256="0" * 64)
        entries = tuple(
            SceneEntry(
                id=i,
                split=split,
                annotated=True,
                frames=(),
                files=(file.model_copy(update={"path": f"scans/{i}.ply"}),),
            )
            for i, split in self.split.items()
        )
        root = Root(kind="scannet", path="raw", meta=(), scenes=entries, annotations=())
        Manifest(roots=(root,)).save(paths.manifest)
        for scene in self.scenes.values():
            scene.save(paths.scenes)
        for split in ("train", "val", "test"):
            write_jsonl(paths.samples / f"{split}.jsonl", [s for s in self.samples if s.split == split])
        write_jsonl(paths.drafts, self.drafts)
        validate.main(self.params)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


def test_clean_data_pass_and_give_the_same_bytes_twice(world):
    world.validate()
    paths = world.params.paths
    assert [row["id"] for row in read_jsonl(paths.cot / "val.jsonl")] == [s.id for s in world.samples[6:9]]
    metrics = json.loads((paths.metrics / "validate.json").read_text())
    assert metrics["expectations"]["critical"]["failed"] == metrics["expectations"]["warning"]["failed"] == 0
    assert metrics["rows"] == {"train": 6, "val": 3}
    first = contents(paths.data_docs)
    assert Path("index.html") in first
    assert not any(b"great-expectations-web-assets" in page for page in first.values())
    shutil.rmtree(paths.data_docs)
    world.validate()
    assert contents(paths.data_docs) == first


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rescan_in_val(world):
    world.split["scene0000_01"] = "val"
    for i in (3, 4, 5):
        world.change(i, split="val")
    world.drafts = [draft(s) for s in world.samples if s.split != "test"]


def box_in_millimetres(world):
    spoil_box(world, "scene0011_00", 1000.0)


def box_too_large(world):
    spoil_box(world, "scene0000_00", 1.4)


def spoil_box(world, scene_id, factor):
    scene = world.scenes[scene_id]
    bed = scene.objects[3]
    boxed = bed._replace(box=Box(*(factor * number for number in bed.box)))
    world.scenes[scene_id] = Scene(scene_id, scene.xyz, scene.rgb, scene.instance, (*scene.objects[:3], boxed))


def cloud_too_wide(world):
    scene = world.scenes["scene0707_00"]
    world.scenes[scene.id] = Scene(scene.id, scene.xyz * 20, scene.rgb, scene.instance, scene.objects)


def duplicate_id(world):
    world.change(2, id=world.samples[0].id)


def unaligned_target(world):
    world.change(0, boxes=(Box(1.0, 2.5, 0.4, 0.6, 1.0, 0.8),))


def identifier_in_prompt(world):
    world.change(1, question="<obj_001> beside the chair")


def sample_of_another_split(world):
    world.change(3, split="val")


def stale_draft(world):
    world.change(0, question="which color is the chair?")


def draft_of_nothing(world):
    world.drafts[2] = world.drafts[2].model_copy(update={"id": "scanqa-gone"})


def unknown_object(world):
    cot = compose("chair <obj_000> <obj_099> red", "red")
    world.drafts[0] = world.drafts[0].model_copy(update={"cot": cot})


def no_draft_passes(world):
    world.drafts = [d.model_copy(update={"cot": "red"}) for d in world.drafts]


def unprepared_scene(world):
    del world.scenes["scene0707_00"]


@pytest.mark.parametrize(
    ("defects", "names"),
    [
        (
            [rescan_in_val, no_draft_passes],
            {"room_in_one_split", "layout_in_one_split", "question_in_training", "some_texts"},
        ),
        (
            [box_in_millimetres, cloud_too_wide, box_too_large, stale_draft, unknown_object],
            {"box_in_metres", "scene_in_metres", "box_inside_scene", "draft_of_sample", "known_objects"},
        ),
        (
            [duplicate_id, unaligned_target, identifier_in_prompt, draft_of_nothing, unprepared_scene],
            {"duplicate_id", "target_is_annotated", "target_in_prompt", "draft_of_sample", "scene_prepared"},
        ),
        ([sample_of_another_split], {"sample_split", "draft_of_sample", "question_in_training"}),
    ],
    ids=lambda value: "-".join(spoil.__name__ for spoil in value) if isinstance(value, list) else "",
)
def test_planted_defects_stop_the_gate_by_their_names_and_by_no_other(world, defects, names):
    for spoil in defects:
        spoil(world)
    with pytest.raises(GateError, match=r"\.work/validate/data_docs/index\.html\.$") as stop:
        world.validate()
    assert set(re.findall(r"(\w+) \(\w+: ", str(stop.value))) == names
    assert "\n" not in str(stop.value)
    assert Path(".work/validate/data_docs/index.html").is_file()
    assert not world.params.paths.cot.exists()
    assert not world.params.paths.data_docs.exists()


@pytest.mark.parametrize(
    ("task", "question", "gives_away"),
    [
        ("grounding", "<obj_001> beside the chair", True),
        ("grounding", "the table beside the chair", False),
        ("captioning", "describe <obj_001>.", False),
        ("qa", "what is at <box>1,1,0.5,0.5,0.5,1</box>?", True),
    ],
)
def test_a_prompt_gives_away_its_target_by_a_box_or_by_the_identifier_it_asks_for(task, question, gives_away):
    sample = asked(question, "table", 1).model_copy(update={"task": task})
    assert samples_table([sample], SPLIT, {}, set())["names_target"].tolist() == [gives_away]


@pytest.mark.parametrize(
    ("object_ids", "boxes", "error"),
    [((0,), (0,), 0.0), ((0,), (1,), 1.5), ((44,), (0,), np.inf), ((0, 1), (0,), np.inf)],
    ids=["its box", "another's box", "no such object", "a box short"],
)
def test_a_target_box_is_compared_with_its_object(object_ids, boxes, error):
    scene = room("scene0000_00")
    boxes = tuple(scene.objects[i].box for i in boxes)
    sample = asked("what?", "table").model_copy(update={"object_ids": object_ids, "boxes": boxes})
    assert samples_table([sample], SPLIT, {scene.id: Extent.of(scene)}, set())["box_error"].tolist() == [error]


@pytest.mark.parametrize(
    ("scene_id", "question", "likeness"),
    [
        ("scene0000_01", "What color is the chair?", 1.0),
        ("scene0000_01", "what color is the red chair?", 5 / 6),
        ("scene0000_01", "how many beds are there", 0.0),
        ("scene0011_00", "what color is the chair?", None),
    ],
    ids=["word for word", "nearly so", "another question", "another room"],
)
def test_leaks_are_likenesses_within_a_physical_room(scene_id, question, likeness):
    trained = asked("what color is the chair?", "red")
    held_out = trained.model_copy(update={"id": "b", "scene_id": scene_id, "question": question, "split": "test"})
    assert leaks([trained, held_out]).get("b") == (likeness if likeness is None else pytest.approx(likeness))


def test_many_rejects_warn_but_do_not_stop(world, caplog):
    for i in (0, 2, 3, 5):
        world.drafts[i] = world.drafts[i].model_copy(update={"cot": "red", "fault": "format"})
    world.validate()
    assert (
        "reject_rate: The filters keep enough drafts. Found 4 of 9 rows, such as scanqa-scene0000_00-0" in caplog.text
    )
    metrics = json.loads((world.params.paths.metrics / "validate.json").read_text())
    assert metrics["expectations"]["warning"]["failed"] == 1
    assert metrics["rejects"] == {"format": 4}
    assert metrics["faults"] == {"format": {"injected": 4, "caught": 4, "precision": 1.0, "recall": 1.0}}


def asked(question, answer, *object_ids):
    return Sample(
        id="a", scene_id="scene0000_00", task="qa", question=question, answers=(answer,), object_ids=object_ids,
        source="scanqa", split="train",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cot", "second", "reason"),
    [
        ("<think>chair <obj_001> red</think><answer>red</answer>", "red", None),
        ("<think>chair <obj_001> red</think><answer>Red</answer>", None, None),
        ("<think>chair <obj_001> red<answer>red</answer>", None, "format"),
        ("<answer>red</answer>", None, "format"),
        ("<think>red</think><answer>red</answer>", "red", "length"),
        (compose("chair <obj_001> red " * 30, "red"), "red", "length"),
        (compose("chair <obj_001> red", "red " * 61), "red", "answer_length"),
        ("<think>. . . .</think><answer>red</answer>", "red", "steps"),
        ("<think>table <obj_002> so red</think><answer>red</answer>", "red", "target"),
        ("<think>chair <obj_001> . table <obj_002> so red</think><answer>red</answer>", "red", "target"),
        ("<think>chair <obj_001> blue</think><answer>red</answer>", "blue", "consistency"),
        ("<think>chair <obj_001> blue</think><answer>blue</answer>", "blue", "consistency"),
    ],
)
def test_filters_reject_in_order_and_by_name(cot, second, reason):
    sample = asked("what color is the chair?", "red", 1)
    given = draft(sample).model_copy(update={"cot": cot, "second_answer": second})
    assert reject_reason(given, sample, PARAMS.think, PARAMS.validate_.filters) == reason


@pytest.mark.parametrize(
    ("thinking", "passes"),
    [("beds none no", True), ("table <obj_002> so no", False)],
)
def test_without_a_target_the_last_step_names_what_was_asked_for(thinking, passes):
    sample = asked("are there any beds?", "no")
    given = draft(sample).model_copy(update={"cot": compose(thinking, "no"), "second_answer": "no"})
    assert (reject_reason(given, sample, PARAMS.think, PARAMS.validate_.filters) is None) == passes


@pytest.mark.parametrize(
    ("thinking", "count"),
    [
        ("chair <obj_001> red", 1),
        ("1. Find the bed. 2. It is red. 3. So red.", 3),
        ("Step 1: find the bed\nStep 2: see it", 2),
        ("it is 1.5 m wide; that fits", 2),
        (". . .", 0),
    ],
)
def test_steps_are_what_stands_between_stops(thinking, count):
    assert len(steps(thinking)) == count


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ("red", " RED", 1.0),
        ("", "", 1.0),
        ("", "red", 0.0),
        ("kitten", "sitting", 4 / 7),
        ("on the bed", "on the red", 0.9),
    ],
)
def test_similarity_is_one_minus_normalised_levenshtein(one, two, expected):
    assert similarity(one, two) == pytest.approx(expected) == similarity(two, one)


def test_precision_and_recall_count_a_fault_by_its_own_filter():
    pairs = [("steps", "steps"), ("steps", None), ("steps", "length"), (None, "steps"), (None, None), ("format", None)]
    assert fault_figures(pairs) == {
        "format": {"injected": 1, "caught": 0, "precision": None, "recall": 0.0},
        "steps": {"injected": 3, "caught": 1, "precision": 0.5, "recall": 1 / 3},
    }
