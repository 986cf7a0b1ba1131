"""Prediction files against reference files: names, coverage, protocols, matching."""

import pytest

from r1pipe.errors import DataError
from r1pipe.evaluation.scorecard import Scoring, run_compare, run_score
from r1pipe.evaluation.scorecard import score as score_files
from r1pipe.evaluation.submissions import Submission
from r1pipe.files import read_json, write_jsonl

CUBE = [0.0, 0.0, 0.0, 2.0, 2.0, 2.0]
HALF = [0.0, 0.0, 0.0, 2.0, 2.0, 1.001]
EXACT_HALF = [0.0, 0.0, 0.0, 2.0, 2.0, 1.0]
FAR = [9.0, 9.0, 9.0, 1.0, 1.0, 1.0]
QA_REFERENCES = [
    {"id": "a", "answers": ["a red chair"], "question_type": "what"},
    {"id": "b", "answers": ["two", "2"], "question_type": "how many"},
]


def score(task, predictions, references, protocol=None, options=()):
    how = Scoring(protocol, dict(options), meteor=False)
    return score_files(task, Submission("rows", list(predictions)), Submission("rows", list(references)), how)


def answers(**texts):
    return [{"id": name, "answer": text} for name, text in texts.items()]


def test_question_answering_is_scored_under_the_official_names():
    found = score("qa", answers(a="red chair", b="2"), QA_REFERENCES)
    assert (found["em"], found["em_refined"], found["em_what"], found["em_how_many"]) == (50, 100, 0, 100)
    assert (found["meteor"], found["meteor_reason"]) == (None, "METEOR was not asked for")
    assert {"cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"} <= found.keys()
    assert (found["num_samples"], found["protocol"]) == (2, "scanqa")


def test_predictions_in_another_order_score_the_same():
    rows = answers(a="red chair", b="2")
    assert score("qa", rows, QA_REFERENCES) == score("qa", rows[::-1], QA_REFERENCES)


@pytest.mark.parametrize(
    ("task", "protocol", "em"),
    [
        pytest.param("qa", None, 0.0, id="raw strings"),
        pytest.param("qa", "leo", 100.0, id="leo cleans both sides"),
        pytest.param("qa", "chat-scene", 100.0, id="so does chat-scene"),
        pytest.param("situated", None, 100.0, id="sqa3d cleans both sides"),
    ],
)
def test_the_protocol_decides_what_is_equal(task, protocol, em):
    assert score(task, answers(a="The chair."), [{"id": "a", "answers": ["the chair"]}], protocol)["em"] == em


def test_dialogue_has_no_exact_match():
    found = score("dialogue", answers(a="hi", b="no"), [{"id": n, "answers": [n]} for n in "ab"])
    assert "em" not in found
    assert "rouge_l" in found


def test_an_unknown_protocol_names_those_there_are():
    with pytest.raises(DataError, match=r"scanqa, leo.*found 'mine'"):
        score("qa", answers(a="x"), [{"id": "a", "answers": ["x"]}], "mine")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        pytest.param("a", r"found 1 missing \(b\), 0 surplus and 0 repeated", id="missing"),
        pytest.param("abcd", r"0 missing, 2 surplus \(c in row 3, d in row 4\)", id="surplus"),
        pytest.param("aab", r"1 repeated \(a in rows 1, 2\)", id="repeated"),
        pytest.param("aac", r"1 missing \(b\), 1 surplus \(c in row 3\) and 1 repeated", id="all three are counted"),
        pytest.param("", "predictions for 2 reference ids, found none", id="empty"),
    ],
)
def test_predictions_must_cover_the_references_exactly(names, message):
    with pytest.raises(DataError, match=message):
        score("qa", [{"id": name, "answer": ""} for name in names], QA_REFERENCES)


def test_a_malformed_row_is_named():
    with pytest.raises(DataError, match=r"answers, found another in row 2: answer: field required.* 1 of 2 rows"):
        score("qa", [{"id": "a", "answer": ""}, {"id": "b"}], QA_REFERENCES)


def test_grounding_counts_thresholds_and_groups():
    references = [
        {"id": "a", "boxes": [CUBE], "unique": True},
        {"id": "b", "boxes": [CUBE], "unique": False},
        {"id": "c", "boxes": [CUBE], "tags": ["hard", "view-dependent"]},
        {"id": "d", "boxes": [CUBE], "unique": False},
    ]
    boxes = {"a": [CUBE], "b": [HALF], "c": [[0, 0, 0, 2, 2, 0.501]], "d": []}
    found = score("grounding", [{"id": name, "boxes": some} for name, some in boxes.items()], references)
    assert (found["acc_25"], found["acc_50"]) == (75, 50)
    assert (found["unique_acc_50"], found["multiple_acc_50"], found["hard_acc_25"]) == (100, 50, 100)
    assert found["view_dependent_acc_50"] == 0


def test_grounding_wants_one_target():
    with pytest.raises(DataError, match="found 2 in a"):
        score("grounding", [{"id": "a", "boxes": []}], [{"id": "a", "boxes": [CUBE, FAR]}])


def test_multi_grounding_is_the_mean_over_queries():
    references = [
        {"id": "none", "boxes": [], "unique": True},
        {"id": "one", "boxes": [CUBE], "unique": False},
        {"id": "two", "boxes": [CUBE, FAR]},
    ]
    boxes = {"none": [], "one": [CUBE, FAR], "two": [CUBE, FAR]}
    found = score("multi-grounding", [{"id": name, "boxes": some} for name, some in boxes.items()], references)
    assert found["f1_25"] == pytest.approx(100 * (1 + 2 / 3 + 1) / 3)
    assert (found["zt_wo_d_f1_25"], found["mt_f1_50"]) == (100, 100)
    assert found["st_w_d_f1_25"] == pytest.approx(200 / 3)
    typed = score("multi-grounding", [{"id": "a", "boxes": []}], [{"id": "a", "boxes": [], "eval_type": "zt_w_d"}])
    assert typed["zt_w_d_f1_50"] == 100


CAPTION_REFERENCES = [
    {"scene_id": "s", "object_id": 0, "box": CUBE, "captions": ["a red chair at the wall"]},
    {"scene_id": "s", "object_id": 1, "box": FAR, "captions": ["one lamp hangs over here"]},
    {"scene_id": "t", "object_id": 0, "box": FAR, "captions": ["this is some other thing"]},
]


def captions(*rows):
    keys = ("scene_id", "object_id", "box", "caption")
    return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]


def test_a_caption_counts_only_where_its_box_reaches_k():
    rows = captions(("s", None, HALF, "a red chair at the wall"), ("s", None, FAR, "one lamp hangs over here"))
    found = score("captioning", rows, CAPTION_REFERENCES)
    assert found["cider_25"] == found["cider_50"] > 500  # two of three are perfect
    assert found["num_samples"] == 3
    assert found["meteor_25"] is None


def test_nobody_speaking_is_scored_as_silence():
    found = score("captioning", [], CAPTION_REFERENCES)
    assert found["cider_50"] == 0
    assert found["rouge_l_50"] > 0  # `sos eos` shares two words with every reference


@pytest.mark.parametrize(
    ("task", "protocol", "options", "name", "value"),
    [
        pytest.param("grounding", None, {}, "acc_50", 0, id="scanrefer's epsilon makes an exact 0.5 a miss"),
        pytest.param("grounding", None, {"epsilon": "0"}, "acc_50", 100, id="without it, >= counts"),
        pytest.param("grounding", "nr3d", {}, "acc_90", 0, id="a ground-truth proposal is the target or not"),
        pytest.param("multi-grounding", None, {}, "f1_50", 0, id="multi3drefer's"),
        pytest.param("multi-grounding", None, {"epsilon": "0"}, "st_f1_50", 100, id="multi3drefer without"),
        pytest.param("grounding", None, {"thresholds": "0.3,0.7"}, "acc_30", 100, id="thresholds"),
    ],
)
def test_an_overlap_of_exactly_k_follows_the_protocol(task, protocol, options, name, value):
    found = score(task, [{"id": "a", "boxes": [EXACT_HALF]}], [{"id": "a", "boxes": [CUBE]}], protocol, options)
    assert found[name] == value
    assert all(f"{key}={text}" in found["protocol"] for key, text in options.items())


def test_an_option_that_nobody_knows_is_named_with_those_there_are():
    with pytest.raises(DataError, match=r"prediction\.ptb.*found reference\.upper"):
        score("qa", answers(a="x"), [{"id": "a", "answers": ["x"]}], None, {"reference.upper": "true"})


def test_an_option_changes_what_is_compared():
    rows, references = answers(a="a chair"), [{"id": "a", "answers": ["the chair"]}]
    assert score("qa", rows, references)["em"] == 0
    assert score("qa", rows, references, None, {"exact": "clean"})["em"] == 100


@pytest.mark.parametrize(
    "box",
    [
        pytest.param([0, 0, 0, 2, 2, 2, 0.0], id="a yaw of nothing"),
        pytest.param([0, 0, 0, 2, 2, 2, 0.0, 0.0, 0.0], id="three angles"),
        pytest.param([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], id="corners"),
    ],
)
def test_a_box_may_be_written_in_four_ways(box):
    assert score("grounding", [{"id": "a", "boxes": [box]}], [{"id": "a", "boxes": [CUBE]}])["acc_50"] == 100


def test_an_object_id_outranks_the_overlap():
    text = "a red chair at the wall"
    near = captions(("s", None, CUBE, text))
    named = captions(("s", 0, CUBE, text))
    wrong = captions(("s", 1, CUBE, text))
    scores = [score("captioning", rows, CAPTION_REFERENCES)["bleu_1_50"] for rows in (near, named, wrong)]
    assert scores[0] == scores[1] > scores[2]


def test_leo_scores_an_object_that_was_described_in_the_wrong_place():
    rows = captions(("s", 0, FAR, "a red chair at the wall"), ("s", None, FAR, "a lamp"))
    assert score("captioning", rows, CAPTION_REFERENCES, "leo")["num_samples"] == 2


def test_ids_may_be_numbers():
    assert score("qa", [{"id": 7, "answer": "x"}], [{"id": "7", "answers": ["x"]}])["em"] == 100


def test_leo_leaves_silent_objects_out():
    rows = captions(("s", None, CUBE, "a red chair at the wall"))
    assert score("captioning", rows, CAPTION_REFERENCES, "leo")["num_samples"] == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param(("x", None, CUBE, "a"), r"found 1 surplus \(x, object None, in row 1\)", id="unknown scene"),
        pytest.param(("s", 7, CUBE, "a"), "found 1 surplus .*object 7", id="unknown object"),
    ],
)
def test_captions_of_nothing_known_are_refused(row, message):
    with pytest.raises(DataError, match=message):
        score("captioning", captions(row), CAPTION_REFERENCES)


def test_score_and_compare_read_and_write_files(tmp_path):
    paths = {name: tmp_path / f"{name}.jsonl" for name in ("first", "second", "references")}
    write_jsonl(paths["first"], answers(a="no", b="2"))
    write_jsonl(paths["second"], answers(a="a red chair", b="2"))
    write_jsonl(paths["references"], QA_REFERENCES)
    out = tmp_path / "out.json"
    assert run_score("qa", paths["first"], paths["references"], out) == read_json(out)
    gap = run_compare("qa", *paths.values(), resamples=100, seed=0)["em"]
    assert (gap["first"], gap["second"], gap["difference"], gap["low"], gap["high"]) == (50, 100, 50, 0, 100)
