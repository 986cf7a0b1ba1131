"""The report is one page, made of the files that the stages before it left, and says what is in them."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tiny_room import room

from r1pipe.errors import DataError
from r1pipe.evaluation.looking import look_row
from r1pipe.evaluation.report import flatten
from r1pipe.evaluation.series import Series, read_courses, read_series
from r1pipe.evaluation.table import summary
from r1pipe.files import write_json, write_jsonl, write_text
from r1pipe.params import Params
from r1pipe.stages import report
from r1pipe.views.cameras import Cameras
from r1pipe.views.choice import ViewChoice
from r1pipe.views.views import Views

"""What stage `validate` leaves."""

ROOT = Path(__file__).parents[1]


ARMS = {"sft": 61.25, "grpo": 65.5, "control_prompts": 61.5, "control_sequences": 62.0, "blind": 24.75}


def measured(value, n=40):
    return {"value": value, "low": value - 7, "high": value + 6, "n": n}


def tasks(value):
    return {
        "qa": {"em": measured(value), "em_refined": measured(value), "em_how_many": measured(value / 2, 11), "format": measured(99.0)},
        "grounding": {"acc_25": measured(value), "acc_50": measured(value - 3), "unique_acc_25": measured(88.0), "format": measured(97.0)},
        "captioning": {"cider_50": measured(2 * value), "format": measured(98.0)},
    }  # fmt: skip


def course(folder, name, values):
    rows = "".join(f"{step}\t{value}\n" for step, value in enumerate(values))
    write_text(folder / "plots" / "metrics" / f"{name}.tsv", f"step\t{name.rsplit('/')[-1]}\n{rows}")


BOX = [1.0, 2.0, 0.5, 1.0, 1.0, 1.0]
COMPLETIONS = {
    "qa": ("<think>chair <obj_000> red</think><answer>red & <b>bold</b></answer>", {"answer": "red & <b>bold</b>"}),
    "grounding": ("<answer><obj_000></answer>", {"boxes": [BOX]}),
}
SHARE = {"hits": 19, "n": 20, "value": 0.95, "low": 0.764, "high": 0.991}
GATE = {
    "rows": {"train": 1234, "val": 56},
    "rejects": {"format": 31, "length": 7},
    "refusals": {"blocked": 3},
    "expectations": {"critical": {"passed": 42, "failed": 0}, "warning": {"passed": 7, "failed": 1}},
    "warnings": {"reject_rate": "The filters keep enough drafts. Found 4 of 9 rows: a <b>."},
    "faults": {"wrong_answer": {"filter": "consistency", "recall": SHARE, "precision": SHARE | {"value": None}}},
    "drift": {"profile": "profiles/ours.json", "allowed": 0.1, "divergence": {"samples, task": 0.0123}},
    "teaching": {
        "drafts": {"reference": 2, "scripted": 5},
        "bill": None,
        "costs": "Gemini was paid, for $1.25 in all.",
    },
    "defects": {"3d_llm_val.json": {"asked_before": 97, "trailing_comma": 1158}},
}


def params_in(folder):
    given = Params.load(ROOT / "params.yaml")
    moved = {name: folder / path for name, path in given.paths if path is not None and name != "scannet"}
    return given.model_copy(update={"paths": given.paths.model_copy(update=moved)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def params(folder):
    return params_in(folder)


def write_stages(metrics):
    write_json(metrics / "validate.json", GATE)
    moved = {"token_rows": {"share": 0.987, "norm": 0.0123, "learning_rate": 1e-4}}
    for stage in ("sft", "grpo"):
        write_json(metrics / f"{stage}.json", {"movement": moved})
    write_json(metrics / "control.json", {"movement": {"prompts": moved, "sequences": moved}})


@pytest.fixture(scope="module")
def page(params):
    paths, split = params.paths, params.evaluate.split
    write_json(paths.metrics / "evaluate.json", {arm: tasks(value) for arm, value in ARMS.items()})
    protocols = {task: {"name": f"rules of {task}", "rules": "."} for task in params.evaluate.tasks}
    facts = {"protocols": protocols, "seed": 0, "split": split, "models": {"grpo": {"sha256": "f00d" * 16}}}
    write_json(paths.metrics / "provenance.json", facts | {"absent": {"meteor": "no jar"}})
    write_json(paths.metrics / "backbones.json", {"clip": {"recall": 0.123456}, "detector": {"f1_25": 0.75}})
    write_stages(paths.metrics)
    course(paths.logs / "grpo", "reward", [0.5, 0.6, 0.7])
    course(paths.logs / "grpo", "eval_reward", [0.5, 0.55, 0.6])
    course(paths.logs / "grpo", "rewards/format/mean", [0.9, 0.95, 1.0])
    course(paths.logs / "sft", "loss", [3.0, 1.0, 0.5])
    course(paths.logs / "sft", "views/w_text", [0.3, 0.31, 0.32])
    course(paths.logs / "control/prompts", "loss", [0.5, 0.4])
    course(paths.logs / "control/sequences", "loss", [0.5, 0.3])
    cell = {
        "value": 20.0,
        "low": 5.0,
        "high": 35.0,
        "change": -45.5,
        "change_low": -60.0,
        "change_high": -31.0,
        "n": 40,
    }
    write_json(
        paths.ablations / "modalities.json",
        {"title": "What the model sees", "commit": "c0ffee", "rows": {"text+image": {"exact match": cell}}},
    )
    old = {"title": "Over seeds", "commit": "01d", "rows": {arm: {"exact match": cell} for arm in ("control", "grpo")}}
    write_json(paths.ablations / "seeds.json", old)
    sample = {"scene_id": "room", "split": split}
    rows = [
        sample
        | {"id": "scanqa-1", "task": "qa", "question": "what colour is it?", "answers": ["red"], "source": "scanqa"},
        sample
        | {"id": "scanrefer-1", "task": "grounding", "question": "the chair", "boxes": [BOX], "source": "scanrefer"},
    ]
    write_jsonl(paths.samples / f"{split}.jsonl", rows)
    references = {
        "qa": [{"id": "scanqa-1", "answers": ["red"]}],
        "grounding": [{"id": "scanrefer-1", "boxes": [BOX]}],
        "captioning": [{"scene_id": "room", "object_id": 3, "box": BOX, "captions": ["a red chair"]}],
    }
    for task, some in references.items():
        write_jsonl(paths.predictions / f"references-{task}.jsonl", some)
        for arm in ARMS:
            write_jsonl(paths.predictions / f"{arm}-{task}.jsonl", [prediction(task, some[0])])
    for arm in ARMS:
        rewards = {"id": "scanqa-1", "format": 1.0, "perception": None, "semantic": 0.25, "total": 0.9}
        write_jsonl(paths.predictions / f"{arm}-reward.jsonl", [rewards])
    room("room").save(paths.scenes)
    write_json(paths.manifest, {})
    write_looks(paths)
    report.main(params)
    return paths.report.read_text(encoding="utf-8")


def write_looks(paths):
    """A room with two views, of which each example's question chose the second."""
    choices = [ViewChoice(0, False, 0.1, 0.2, 0.3, 0.25), ViewChoice(1, True, 0.1, 0.2, 0.3, 0.6375)]
    asked = {"qa": "what colour is it?", "grounding": "the chair", "captioning": "describe <obj_000>."}
    write_jsonl(
        paths.predictions / "views-grpo.jsonl",
        [look_row(task, "room", question, choices) for task, question in asked.items()],
    )
    targets = {"n": 4, "in_any_view": 4, "in_chosen_views": 3, "in_random_views": 2.5, "gain": 12.5, "low": -50.0}
    targets |= {"high": 62.5, "pixels_chosen": 3.0, "pixels_all": 2.0, "in_others_views": 2.25}
    write_json(paths.metrics / "views.json", {"pairs": {"n": 7, "differ": 5}, "targets": targets})
    pictures = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    empty = np.zeros((2, 8, 8), np.float32)
    cameras = Cameras(np.tile(np.eye(4), (2, 1, 1)), np.tile(np.eye(3), (2, 1, 1)), (8, 8))
    Views("room", pictures, empty, empty.astype(np.int32), np.zeros(2, bool), cameras).save(paths.views)


def prediction(task, reference):
    if task == "captioning":
        return {"scene_id": "room", "box": BOX, "caption": "a chair indeed", "completion": ""}
    completion, row = COMPLETIONS[task]
    return {"id": reference["id"], **row, "completion": completion}


class Wellformed(HTMLParser):
    void = frozenset(("meta", "br", "img"))

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('data-is="exact match">65.5<small>[58.5, 71.5]</small>', id="a headline number with interval"),
        pytest.param("exact match<br>n=40", id="a headline number's count"),
        pytest.param("131.0<small>", id="caption CIDEr"),
        pytest.param('<td>how many</td><td class="num" data-is="n">11</td>', id="a question type"),
        pytest.param("<td>unique</td>", id="a kind of query"),
        pytest.param("grpo +40.8 exact match", id="the gap to blind"),
        pytest.param("<td>format</td>", id="a reason for rejects"),
        pytest.param('<td class="num">31</td>', id="a count of rejects"),
        pytest.param("42 hold and 0 fail; of the warnings 7 hold and 1 fail", id="expectations by severity"),
        pytest.param('<a href="data_docs/index.html">Data Docs</a>', id="the way to the Data Docs"),
        pytest.param("Found 4 of 9 rows: a &lt;b&gt;.", id="a warning with its rows, escaped"),
        pytest.param('<td>blocked</td><td class="num">3</td>', id="what the teacher refused"),
        pytest.param("0.950<small>[0.764, 0.991] n=20", id="a filter's recall with interval and count"),
        pytest.param("<code>profiles/ours.json</code>", id="the profile that data are held against"),
        pytest.param('<td>samples, task</td><td class="num">0.0123</td>', id="a column's drift"),
        pytest.param("asked before 97, trailing comma 1158", id="defects of a published file"),
        pytest.param("0.12346", id="an encoder's metric"),
        pytest.param("f00d" * 16, id="a hash"),
        pytest.param("rules of qa", id="a protocol"),
        pytest.param("chair &lt;obj_000&gt; red", id="reasoning"),
        pytest.param("red &amp; &lt;b&gt;bold&lt;/b&gt;", id="an answer, escaped"),
        pytest.param("IoU 1.00", id="how well a box fits"),
        pytest.param("a chair indeed", id="a caption"),
        pytest.param("Not comparable with the numbers above", id="the caveat on published results"),
        pytest.param("Not logged in this run: GRPO: weights of the view selector", id="what was not logged"),
        pytest.param("20.0<small>-45.5 [-60.0, -31.0]", id="an ablation's change with its interval"),
        pytest.param("commit c0ffee</span>", id="the commit of an ablation"),
        pytest.param("<tr><td>control</td>", id="the one control of an ablation from when there was one"),
        pytest.param("</span>control_sequences: the same, on as many samples", id="what a control is"),
        pytest.param('var(--line-1)"></span>control_sequences</span>', id="the loss of both controls in one chart"),
        pytest.param("<b>view 1</b><b>0.637</b>", id="a view's utility"),
        pytest.param(
            '<td>token rows</td><td class="num">98.7 %</td><td class="num">0.0123</td>', id="how far a part moved"
        ),
        pytest.param("Of 7 pairs of questions about one room with different targets, 5 get", id="whether views differ"),
        pytest.param("random would show 2.5 (difference +12.5 points [-50.0, +62.5]), those", id="whether views help"),
        pytest.param("format 1.00, semantic 0.25, total 0.90", id="each reward of an answer"),
        pytest.param("<code>reference</code> 2, <code>scripted</code> 5", id="how many drafts each teacher wrote"),
        pytest.param("for $1.25 in all", id="what the teacher was paid"),
        pytest.param("<dt>manifest of the raw files / sha256</dt>", id="the data's hash"),
        pytest.param("<dt>versions / torch</dt>", id="a package's version"),
    ],
)
def test_the_page_shows(page, text):
    assert text in page


def test_the_page_is_wellformed_and_needs_nothing_but_itself(page):
    parser = Wellformed()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r'<script|<link|src="(?!data:image/jpeg;base64,|costs\.svg")|src=[^"]|url\(|https?://', page)


def test_what_was_not_measured_is_said(page, folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    params = params_in(tmp_path)
    write_json(
        params.paths.metrics / "validate.json",
        GATE | {"faults": {}, "defects": {}, "drift": {"profile": None, "allowed": 0.1, "divergence": {}}},
    )
    report.main(params)
    page = params.paths.report.read_text(encoding="utf-8")
    assert "Not measured: <code>validate.probe.samples</code> is 0" in page
    assert "Not measured: no profile is given" in page


def test_every_example_has_its_room_and_its_contact_sheet_with_the_chosen_view_framed(page):
    assert page.count("<figure") == 9 * 2, "three tasks by lot, best and worst, two views each"
    assert page.count("<figure class=chosen>") == 9
    assert page.count('src="data:image/jpeg;base64,') == 9 * 2 + 9


def test_the_page_is_light(page):
    assert len(page) < 400_000


def test_the_same_files_give_the_same_bytes(params, page):
    report.main(params)
    assert params.paths.report.read_text(encoding="utf-8") == page


def test_a_course_is_read_with_the_steps_it_was_logged_at(tmp_path):
    course(tmp_path, "rewards/format/mean", [1.0, 2.0])
    course(tmp_path, "once", [1.0])
    assert read_courses(tmp_path) == {"rewards/format/mean": Series((0, 1), (1, 2))}


def test_a_broken_course_names_its_file(tmp_path):
    write_text(tmp_path / "loss.tsv", "step\tloss\n0\tx\n")
    with pytest.raises(DataError, match=r"loss\.tsv.*'x'"):
        read_series(tmp_path / "loss.tsv")


def test_flatten_names_every_leaf():
    assert dict(flatten({"a": {"b": 1}, "c": [1, 2]})) == {"a / b": 1, "c": "1, 2"}


def test_the_declared_metric_is_small_and_leaves_out_what_was_not_measured():
    metrics = {arm: tasks(value) | {"reward": {"total": measured(50.04)}} for arm, value in ARMS.items()}
    whole = {"em": 65.5, "acc_25": 65.5, "cider_50": 131.0, "reward": 50.0, "sft_em": 61.2, "blind_em": 24.8}
    assert summary(metrics) == whole
    assert summary({arm: {"qa": {"em": measured(1.0)}} for arm in ARMS}) == {"em": 1.0, "sft_em": 1.0, "blind_em": 1.0}
