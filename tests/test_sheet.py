"""A contact sheet shows every view with its scores, and frames the chosen ones."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_serving import served_model

from r1pipe.errors import DataError
from r1pipe.evaluation.sheet import FRAME, MARGIN, contact_sheet, picture_uri, places, save_sheet
from r1pipe.serving import asking
from r1pipe.views.choice import ViewChoice

ROOT = Path(__file__).parents[1]
ACCENT, COLUMNS, TILE = (13, 143, 116), 3, 120
RGB = np.stack([np.full((48, 64, 3), 40 * i, np.uint8) for i in range(5)])


def choices(*chosen):
    return [ViewChoice(i, i in chosen, 0.1 * i, 0.2, 0.3, 0.4) for i in range(len(RGB))]


def drawn(title="what color is the chair?", *chosen, **options):
    return np.asarray(contact_sheet(RGB, choices(*chosen), title=title, columns=COLUMNS, tile=TILE, **options))


def spots(num_lines=1):
    return places(RGB.shape[:3], num_lines=num_lines, columns=COLUMNS, tile=TILE)


def test_every_view_stands_at_its_place_in_its_own_proportions():
    sheet = drawn()
    for rgb, spot in zip(RGB, spots(), strict=True):
        assert (spot.right - spot.left, spot.bottom - spot.top) == (120, 90)
        assert (sheet[spot.top : spot.bottom, spot.left : spot.right] == rgb[0, 0]).all()


def test_the_chosen_views_and_no_others_are_framed():
    sheet = drawn("the chair", 1, 3)
    framed = [(sheet[spot.top - FRAME : spot.top, spot.left : spot.right] == ACCENT).all() for spot in spots()]
    assert framed == [False, True, False, True, False]


def test_a_sheet_is_as_wide_as_its_columns_and_as_high_as_its_rows():
    height, width, _ = drawn().shape
    assert width == 2 * MARGIN + 3 * 120 + 2 * 16
    assert height > spots()[-1].bottom
    taller, same, _ = drawn("a long question about the chair that needs a second line").shape
    assert same == width and taller == height + 30


def test_question_room_and_scores_are_written():
    blank, sheet = drawn(""), drawn("what is it?", subtitle="room0001_00")
    changed = (blank != sheet).any(axis=2)
    rows = changed.nonzero()[0]
    assert changed.sum() > 200
    assert rows.max() < spots()[0].top, "another question changes nothing below it"
    other = contact_sheet(
        RGB,
        [c._replace(clip=0.5) for c in choices()],
        title="what is it?",
        subtitle="room0001_00",
        columns=3,
        tile=TILE,
    )
    below = (np.asarray(other) != sheet).any(axis=2)
    for spot in spots():
        assert below[spot.bottom : spot.bottom + 70, spot.left : spot.right].any()


def test_one_choice_a_view_is_asked_for():
    with pytest.raises(DataError, match="found 4 choices and 5 views"):
        contact_sheet(RGB, choices()[:4], title="")


def test_a_picture_in_a_page_is_small_and_always_the_same():
    rgb = np.random.default_rng(0).integers(0, 256, (200, 400, 3), dtype=np.uint8)
    uri = picture_uri(rgb)
    head, _, data = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 48)
    assert picture_uri(rgb) == uri


def test_a_question_about_a_room_becomes_a_sheet_with_as_many_frames_as_views_kept(tmp_path, monkeypatch):
    from r1pipe.params import Params

    served = served_model(tmp_path)
    params = Params.load(ROOT / "params.yaml")
    paths = params.paths.model_copy(update={"features": tmp_path / "data/features"})
    monkeypatch.setattr(asking, "load", lambda *_: served)
    look = asking.look_scene(
        params.model_copy(update={"paths": paths}), "room0000_00", " what color is the chair? ", task="qa"
    )
    assert look.ask.question == "what color is the chair?"
    assert sum(choice.chosen for choice in look.choices) == 2
    assert len(look.photographs) == len(look.choices) == len(served.room("room0000_00").views.rgb)
    save_sheet(tmp_path / "sheets/one.png", look.photographs, look.choices, title=look.ask.question, subtitle="")
    assert Image.open(tmp_path / "sheets/one.png").format == "PNG"
