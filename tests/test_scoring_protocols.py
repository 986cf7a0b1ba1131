"""One prediction file under each named protocol: equal to that protocol's official code.

`official` writes out, from the evaluators' own steps, which strings they hand to coco-caption's scorers; with pycocoevalcap and
Java at hand its figures are computed anew, and `FIGURES` holds what came out.
"""

import importlib.util
import math
import shutil

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from r1pipe.evaluation.protocols import PROTOCOLS
from r1pipe.evaluation.scoring import measure
from r1pipe.metrics.answers import clean_answer
from r1pipe.metrics.meteor import find_jar

needs_coco = pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="needs pycocoevalcap 1.2 and Java",
)

ANSWERS = {
    "a": ("The brown chair.", ["brown chair", "the chair, brown"]),
    "b": ("2", ["two", "Two chairs."]),
    "c": ("To the left of  the TV, isn't it?", ["to the left of the tv"]),
    "d": ("on top of the desk", ["on top of the desk", "on the desk"]),
    "e": ("Left", ["left", "to the left side of the desk"]),
    "f": ("it's a rectangular white table...", ["rectangular  white table", "white (and rectangular)"]),
    "g": ("next to the window. and the door", ["next to window.", "near the door and window"]),
    "h": ("no", ["yes"]),
}
CUBE, FAR, NEAR = [0, 0, 0, 2, 2, 2], [9, 9, 9, 1, 1, 1], [0, 0, 1.2, 2, 2, 2]
OBJECTS = {
    0: (CUBE, ["this is a red chair . it is at the wall .", "a red chair, by the wall"]),
    1: (FAR, ["one lamp hangs over here . " + "very " * 30 + "bright"]),
    2: (NEAR, ["the table is white . it stands next to the chair ."]),
    3: ([5, 5, 5, 1, 1, 1], ["nobody speaks of this shelf ."]),
}
CAPTIONS = [
    ([0, 0, 0, 2, 2, 1.9], "This is a red chair. It is at the wall."),
    ([0, 0, 0.4, 2, 2, 2], "a  table, white"),
    ([0, 0, 1.2, 2, 2, 1.01], "the table is white. it stands next to the chair"),
    ([9, 9, 9, 1, 1, 0.3], "one lamp hangs over here"),
    ([0, 0, 0, 2, 2, 1.5], "a chair at the wall."),
]


def ptb(texts):
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({0: [{"caption": text} for text in texts]})[0]


def official_answers(name):
    """Prediction and references as the evaluator of that name hands them to the scorers."""
    said, known = [a for a, _ in ANSWERS.values()], [r for _, r in ANSWERS.values()]
    if name in ("scanqa", "sqa3d", "sqa3d-llm", "coco"):
        return ptb(said), [ptb(texts) for texts in known]
    if name == "leo":
        return [clean_answer(t) for t in said], [[clean_answer(t) for t in texts] for texts in known]
    if name == "chat-scene":
        cut = [t[:-1] if len(t) > 1 and t[-1] == "." else t for t in said]
        return ptb([clean_answer(t[:1].lower() + t[1:]) for t in cut]), [ptb(texts) for texts in known]
    if name == "video-3d-llm":
        return [t.rstrip(".") for t in said], known
    return [" ".join(w for w in t.split(" ") if w) for t in said], known


def aabb_iou(a, b):
    low = [max(a[i] - a[i + 3] / 2, b[i] - b[i + 3] / 2) for i in range(3)]
    high = [min(a[i] + a[i + 3] / 2, b[i] + b[i + 3] / 2) for i in range(3)]
    shared = 1.0
    for i in range(3):
        shared *= max(high[i] - low[i], 0)
    return shared / (a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared + 1e-8)


def heard_by(name, k):
    """The caption that speaks for each object at IoU k, and the objects that are scored at all."""
    overlap = {(c, o): aabb_iou(CAPTIONS[c][0], OBJECTS[o][0]) for c in range(len(CAPTIONS)) for o in OBJECTS}
    heard = {}
    if name == "scan2cap":
        for c, (box, text) in enumerate(CAPTIONS):
            nearest = min(OBJECTS, key=lambda o: sum((box[i] - OBJECTS[o][0][i]) ** 2 for i in range(3)))
            if overlap[c, nearest] > k:
                heard[nearest] = text
    elif name == "ll3da":
        best = dict.fromkeys(OBJECTS, 0.0)
        for c, (_, text) in enumerate(CAPTIONS):
            o = max(OBJECTS, key=lambda o: overlap[c, o])
            if overlap[c, o] > max(k, best[o]):
                best[o], heard[o] = overlap[c, o], text
    else:
        chosen = {o: max(range(len(CAPTIONS)), key=lambda c: overlap[c, o]) for o in OBJECTS}
        heard = {o: CAPTIONS[c][1] for o, c in chosen.items() if overlap[c, o] >= k}
    drops = name in ("leo", "video-3d-llm")
    return heard, [o for o in OBJECTS if not drops or any(overlap[c, o] > 0 for c in range(len(CAPTIONS)))]


def official_captions(name, k):
    """As the evaluator of that name hands them to the scorers, at IoU k."""
    heard, kept = heard_by(name, k)
    form = {
        "chat-scene": lambda t: f"sos {t} eos",
        "scan2cap": lambda t: " ".join(["sos", *t.split(), "eos"]),
        "ll3da": lambda t: ("sos " + t + " eos").replace("  ", " "),
        "leo": lambda t: ("sos " + t + " eos").replace(". ", " . "),
        "video-3d-llm": lambda t: "sos " + t.replace(".", " . ").replace(",", " , ").lower() + " eos",
    }[name]
    known_form = {
        "chat-scene": form,
        "leo": lambda t: f"sos {t} eos",
        "video-3d-llm": form,
    }.get(name, lambda t: " ".join(["sos", *t.split()[:30], "eos"]))
    said = [form(heard[o]) if o in heard else "sos eos" for o in kept]
    known = [[known_form(t) for t in OBJECTS[o][1]] for o in kept]
    return (ptb(said), [ptb(texts) for texts in known]) if name == "chat-scene" else (said, known)


def benchmark_matches(captions):
    """Scan2Cap's benchmark: for each object a caption with its IoU, matched by a GIoU without its intersection."""
    low = [[box[i] - box[i + 3] / 2 for i in range(3)] for box, _ in captions]
    high = [[box[i] + box[i + 3] / 2 for i in range(3)] for box, _ in captions]
    cost = np.zeros((len(captions), len(OBJECTS)))
    for c, (box, _) in enumerate(captions):
        for o, (target, _) in OBJECTS.items():
            hull = 1.0
            for i in range(3):
                hull *= max(high[c][i], target[i] + target[i + 3] / 2) - min(low[c][i], target[i] - target[i + 3] / 2)
            cost[c, o] = 1 - (math.prod(box[3:]) + math.prod(target[3:])) / hull
    by_object = dict.fromkeys(OBJECTS, 0)
    by_object |= {int(o): int(c) for c, o in zip(*linear_sum_assignment(cost), strict=True)}
    return {o: (captions[c][1], aabb_iou(captions[c][0], OBJECTS[o][0])) for o, c in by_object.items()}


def official_f1(captions, k, scorers):
    """The benchmark's F1, precision and recall of each metric, times 100."""
    matches = benchmark_matches(captions)
    said = {o: [f"sos {text} eos"] for o, (text, _) in matches.items()}
    known = {o: [f"sos {text} eos" for text in texts] for o, (_, texts) in OBJECTS.items()}
    mask = np.array([overlap >= k for _, overlap in matches.values()])
    rows = []
    for score in scorers(known, said):
        total = np.sum(np.array(score) * mask)
        precision, recall = total / len(captions), total / len(OBJECTS)
        rows.append(
            [round(100 * float(x), 4) for x in (2 * precision * recall / (precision + recall), precision, recall)]
        )
    return rows


def coco_sentences(known, said):
    """pycocoevalcap's scores of single sentences: CIDEr, BLEU-4, ROUGE-L."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    return (
        Cider().compute_score(known, said)[1],
        Bleu(4).compute_score(known, said, verbose=0)[1][3],
        Rouge().compute_score(known, said)[1],
    )


def coco(said, known):
    """pycocoevalcap's figures, times 100: CIDEr, BLEU-1..4, ROUGE-L."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    res, gts = {i: [t] for i, t in enumerate(said)}, dict(enumerate(known))
    cider, rouge = (scorer().compute_score(gts, res)[0] for scorer in (Cider, Rouge))
    return [round(100 * float(x), 4) for x in (cider, *Bleu(4).compute_score(gts, res, verbose=0)[0], rouge)]


NAMES = ("cider", "bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor")
# METEOR, the last figure, is what the scorer of pycocoevalcap gave, which is the jar's aggregate.
FIGURES = {
    "scanqa": [272.9596, 72.7273, 63.8179, 54.6154, 48.2732, 62.6976, 47.463],
    "leo": [280.9209, 79.1667, 70.3414, 60.8135, 42.3375, 78.5958, 52.4507],
    "chat-scene": [240.4078, 76.9231, 58.4705, 42.8895, 0.0054, 75.8286, 42.9625],
    "video-3d-llm": [204.2588, 64.5161, 58.0177, 48.2318, 40.1139, 46.377, 43.5549],
    "ll3da": [169.4961, 58.0645, 50.2448, 41.2376, 35.6668, 38.771, 43.0811],
    ("chat-scene", 0.25): [409.7224, 33.5911, 32.4121, 32.3571, 32.2836, 67.0177, 27.0181],
    ("chat-scene", 0.5): [409.7224, 23.1243, 22.1398, 22.4633, 22.6267, 62.2503, 22.5712],
    ("scan2cap", 0.25): [174.802, 27.5713, 22.6199, 19.6576, 17.4571, 53.0067, 19.7939],
    ("scan2cap", 0.5): [174.7985, 16.7525, 12.7191, 10.589, 9.0483, 47.4997, 15.3976],
    ("ll3da", 0.25): [196.0787, 29.3784, 24.4192, 21.4798, 18.1776, 53.9683, 24.0282],
    ("ll3da", 0.5): [196.0752, 19.6856, 15.3585, 13.1254, 10.4755, 48.4613, 19.6414],
    ("leo", 0.25): [423.4238, 35.6574, 33.0068, 31.399, 29.8837, 69.4714, 27.8363],
    ("leo", 0.5): [423.4237, 25.1125, 22.8263, 21.8192, 20.7892, 63.2541, 23.1052],
    ("video-3d-llm", 0.25): [498.3704, 37.886, 36.6435, 36.149, 35.8211, 68.188, 27.8363],
    ("video-3d-llm", 0.5): [498.3704, 26.9727, 25.9145, 25.8763, 25.8292, 62.2319, 23.1052],
}
FIGURES["sqa3d"] = FIGURES["sqa3d-llm"] = FIGURES["coco"] = FIGURES["scanqa"]
CASES = [(task, p.name) for task in ("qa", "situated", "dialogue", "planning") for p in PROTOCOLS[task]]
CAPTION_CASES = [(p.name, k) for p in PROTOCOLS["captioning"] if p.score == "corpus" for k in (0.25, 0.5)]
FEW = CAPTIONS[1::2]
# F1, precision and recall of CIDEr, BLEU-4 and ROUGE-L: of all captions, and of two, where an object left over hears the first.
F1_FIGURES = {
    (5, 0.25): [[174.289, 156.8601, 196.0752], [12.4086, 11.1678, 13.9597], [38.8096, 34.9286, 43.6608]],
    (5, 0.5): [[174.289, 156.8601, 196.0752], [12.2154, 10.9938, 13.7423], [32.8002, 29.5201, 36.9002]],
    (2, 0.25): [[25.4148, 38.1223, 19.0611], [0.2899, 0.4349, 0.2174], [32.2683, 48.4025, 24.2012]],
    (2, 0.5): [[19.4027, 29.1041, 14.5521], [0.0, 0.0, 0.0], [13.9269, 20.8904, 10.4452]],
}


def answer_measures(task, name, jar=None):
    predictions = [{"id": key, "answer": said} for key, (said, _) in ANSWERS.items()]
    references = [{"id": key, "answers": known} for key, (_, known) in ANSWERS.items()]
    return {key: item.value for key, item in measure(task, predictions, references, name, jar=jar).items()}


def caption_measures(name, jar=None, captions=CAPTIONS):
    predictions = [{"scene_id": "s", "box": box, "caption": text} for box, text in captions]
    references = [
        {"scene_id": "s", "object_id": o, "box": box, "captions": known} for o, (box, known) in OBJECTS.items()
    ]
    return {key: item.value for key, item in measure("captioning", predictions, references, name, jar=jar).items()}


@pytest.mark.parametrize(("task", "name"), CASES)
def test_answers_score_as_the_protocols_code_scores_them(task, name):
    found = answer_measures(task, name)
    assert [found[key] for key in NAMES[:-1]] == pytest.approx(FIGURES[name][:-1], abs=1e-4)


@pytest.mark.parametrize(("name", "k"), CAPTION_CASES)
def test_captions_score_as_the_protocols_code_scores_them(name, k):
    found = caption_measures(name)
    assert [found[f"{key}_{100 * k:.0f}"] for key in NAMES[:-1]] == pytest.approx(FIGURES[name, k][:-1], abs=1e-4)


@pytest.mark.parametrize(("num", "k"), [(len(some), k) for some in (CAPTIONS, FEW) for k in (0.25, 0.5)])
def test_scan2caps_benchmark_counts_captions_and_objects(num, k):
    found = caption_measures("scan2cap-benchmark", captions=CAPTIONS if num == len(CAPTIONS) else FEW)
    names = [
        f"{name}_{part}{100 * k:.0f}"
        for name in ("cider", "bleu_4", "rouge_l")
        for part in ("", "precision_", "recall_")
    ]
    assert [found[name] for name in names] == pytest.approx(np.ravel(F1_FIGURES[num, k]).tolist(), abs=1e-4)


def test_no_caption_at_all_is_worth_nothing_there():
    assert set(caption_measures("scan2cap-benchmark", captions=[]).values()) == {0}


# Worked by hand from the rules: which of the eight answers are exactly right, and which are right when refined.
@pytest.mark.parametrize(
    ("task", "name", "exact", "refined"),
    [
        # Cleaned, c and f contain a reference, and g is contained in one without its full stop; h is wrong.
        pytest.param("qa", "scanqa", "d", "abcdefg", id="raw strings"),
        pytest.param("qa", "leo", "abde", "abcdefg", id="both cleaned, the first match decides"),
        pytest.param("qa", "chat-scene", "abde", "abcdefg", id="both cleaned"),
        pytest.param("qa", "video-3d-llm", "d", "abcdefg", id="raw strings again"),
        pytest.param("situated", "sqa3d", "abde", "abcdefg", id="sqa3d cleans both"),
        pytest.param("situated", "video-3d-llm", "abde", "abcdefg", id="and so does video-3d-llm there"),
        # Only the answer is cleaned, so d lost its article and no longer equals its reference; h shares no word with "yes".
        pytest.param("situated", "sqa3d-llm", "abe", "abcdefg", id="one word in common with the first reference"),
    ],
)
def test_exact_match_follows_the_protocol(task, name, exact, refined):
    rules = next(p for p in PROTOCOLS[task] if p.name == name)
    matches = {key: rules.compare(said, known) for key, (said, known) in ANSWERS.items()}
    assert "".join(key for key, found in matches.items() if found.exact) == exact
    assert "".join(key for key, found in matches.items() if found.refined) == refined


@needs_coco
def test_the_figures_are_those_of_pycocoevalcap():
    for name in {name for _, name in CASES}:
        assert coco(*official_answers(name)) == pytest.approx(FIGURES[name][:-1], abs=1e-4), name
    for name, k in CAPTION_CASES:
        assert coco(*official_captions(name, k)) == pytest.approx(FIGURES[name, k][:-1], abs=1e-4), (name, k)


@needs_coco
def test_the_benchmarks_figures_are_those_of_pycocoevalcap():
    for captions in (CAPTIONS, FEW):
        for k in (0.25, 0.5):
            assert official_f1(captions, k, coco_sentences) == F1_FIGURES[len(captions), k]


@needs_coco
def test_meteor_is_that_of_its_jar():
    jar = find_jar()
    assert answer_measures("qa", "scanqa", jar)["meteor"] == pytest.approx(FIGURES["scanqa"][-1], abs=1e-4)
    assert caption_measures("ll3da", jar)["meteor_50"] == pytest.approx(FIGURES["ll3da", 0.5][-1], abs=1e-4)
