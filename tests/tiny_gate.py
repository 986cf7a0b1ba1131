"""Four small rooms with questions and drafts: everything that stage `validate` reads, to be spoilt."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import yaml

from r1pipe.datasets import Pose, Sample
from r1pipe.datasets.draft import Draft
from r1pipe.datasets.manifest import File, Manifest, Root, SceneEntry
from r1pipe.files import write_jsonl, write_text
from r1pipe.geometry import Box
from r1pipe.params import Params
from r1pipe.params.chains import Probe
from r1pipe.scenes import Scene, SceneObject
from r1pipe.stages import validate

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
    corners = [[x, y, z] for x in (0, 4) for y in (0, 4.2) for z in (0, 2.4)]
    xyz = np.array([*corners, *(o.box.centre for o in objects)], np.float32)
    colours = np.tile(np.array([200, 20, 20], np.uint8), (len(xyz), 1))
    return Scene(scene_id, xyz, colours, np.array([-1] * 8 + [o.id for o in objects], np.int32), objects)


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
                "validate_": PARAMS.validate_.model_copy(
                    update={"profile": None, "probe": Probe(samples=0, fault_rate=0.0)}
                ),
                "paths": PARAMS.paths.model_copy(
                    update={
                        "manifest": folder / "manifest.json",
                        "scenes": folder / "scenes",
                        "samples": folder / "samples",
                        "drafts": folder / "cot" / "drafts.jsonl",
                        "rejects": folder / "cot" / "rejects.jsonl",
                        "cot": folder / "cot" / "validated",
                        "release": folder / "cot" / "release",
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
        self.rejects = []
        self.meshes = {scene_id: sha256(scene_id.encode()).hexdigest() for scene_id in SPLIT}

    def set(self, **update):
        """Parameters of the stage."""
        changed = self.params.validate_.model_copy(update=update)
        self.params = self.params.model_copy(update={"validate_": changed})

    def change(self, index, **update):
        self.samples[index] = self.samples[index].model_copy(update=update)

    def validate(self):
        self.write()
        validate.main(self.params)

    def write(self):
        paths = self.params.paths
        write_text(Path("params.yaml"), yaml.safe_dump(self.params.model_dump(mode="json", by_alias=True)))
        entries = tuple(
            SceneEntry(
                id=i,
                split=split,
                annotated=True,
                frames=(),
                files=(File(path=f"scans/{i}/{i}_vh_clean_2.ply", size=1, sha256=self.meshes[i]),),
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
        write_jsonl(paths.rejects, self.rejects)


def asked(question, answer, *object_ids):
    return Sample(
        id="a", scene_id="scene0000_00", task="qa", question=question, answers=(answer,), object_ids=object_ids,
        source="scanqa", split="train",
    )  # fmt: skip
