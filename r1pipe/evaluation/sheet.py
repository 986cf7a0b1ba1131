"""A contact sheet: every candidate view of a room with its scores for a question, the chosen ones framed.

Shape suffixes: V views, H rows, W columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from r1pipe.errors import DataError
from r1pipe.files import whole
from r1pipe.views.choice import ViewChoice
from r1pipe.views.pictures import jpeg_uri

MARGIN, GAP, FRAME, LINE = 24, 16, 6, 20
"""Pixels: around the sheet, between tiles, of a frame's width, from one line of text to the next."""

CAPTION = 3 * LINE + 8
"""Pixels below a view: its number and utility, the scores' names, the scores."""

_PAPER, _INK, _SOFT, _ACCENT = "#fbfbf9", "#1c1f24", "#5d6470", "#0d8f74"
_SCORES = ("text3d", "image3d", "clip")


class Tile(NamedTuple):
    """A view in a page: its picture as a data URI, and what the selector made of it."""

    picture: str
    choice: ViewChoice


class Place(NamedTuple):
    """Where a view's picture stands on a sheet: pixels, left upper corner first."""

    left: int
    top: int
    right: int
    bottom: int


def contact_sheet(
    rgb_VHW3: NDArray[np.uint8],
    choices: Sequence[ViewChoice],
    *,
    title: str,
    subtitle: str = "",
    columns: int = 5,
    tile: int = 220,
) -> Image.Image:
    """Every view as a tile, in the candidates' order, below the question.

    Args:
        rgb_VHW3: what each candidate camera sees.
        choices: what the selector made of each, one a view.
        title: the question; long ones are broken into lines.
        subtitle: room and model, in small letters.
        columns: tiles a row, at most.
        tile: width of a tile, pixels.

    Raises:
        DataError: if there is not one choice a view.
    """
    if len(rgb_VHW3) != len(choices):
        raise DataError(f"Expected one choice a view, found {len(choices)} choices and {len(rgb_VHW3)} views.")
    columns = min(columns, len(choices))
    lines = _broken(title, _font(22), columns * (tile + GAP) - GAP)
    spots = places(rgb_VHW3.shape[:3], num_lines=len(lines), columns=columns, tile=tile)
    size = (2 * MARGIN + columns * (tile + GAP) - GAP, spots[-1].bottom + CAPTION + MARGIN)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, line in enumerate(lines):
        draw.text((MARGIN, MARGIN + 30 * i), line, _INK, _font(22))
    draw.text((MARGIN, MARGIN + 30 * len(lines)), subtitle, _SOFT, _font(14))
    for rgb_HW3, choice, spot in zip(rgb_VHW3, choices, spots, strict=True):
        picture = Image.fromarray(rgb_HW3).resize((spot.right - spot.left, spot.bottom - spot.top))
        sheet.paste(picture, (spot.left, spot.top))
        _describe(draw, choice, spot)
    return sheet


def save_sheet(
    path: Path, rgb_VHW3: NDArray[np.uint8], choices: Sequence[ViewChoice], *, title: str, subtitle: str
) -> None:
    """Write a contact sheet as a PNG, whole."""
    sheet = contact_sheet(rgb_VHW3, choices, title=title, subtitle=subtitle)
    with whole(path) as draft:
        sheet.save(draft, "PNG")


def places(shape_VHW: tuple[int, ...], *, num_lines: int, columns: int, tile: int) -> list[Place]:
    """Where the picture of each view stands, below a title of `num_lines` lines and a subtitle."""
    count, rows, cols = shape_VHW
    height = round(tile * rows / cols)
    top = MARGIN + 30 * num_lines + 2 * LINE
    corners = [
        (MARGIN + (i % columns) * (tile + GAP), top + (i // columns) * (height + CAPTION + GAP)) for i in range(count)
    ]
    return [Place(left, top, left + tile, top + height) for left, top in corners]


def tiles(rgb_VHW3: NDArray[np.uint8], choices: Sequence[ViewChoice]) -> list[Tile]:
    """A contact sheet's views for a page."""
    return [Tile(picture_uri(rgb_VHW3[choice.view]), choice) for choice in choices]


def picture_uri(rgb_HW3: NDArray[np.uint8], *, size: int = 96) -> str:
    """A view as a JPEG that stands in a page itself, at most `size` pixels wide and high."""
    picture = Image.fromarray(rgb_HW3)
    picture.thumbnail((size, size))
    return jpeg_uri(picture, quality=80)


def _describe(draw: ImageDraw.ImageDraw, choice: ViewChoice, spot: Place) -> None:
    """Frame a chosen view, and write what it is worth below."""
    line = spot.bottom + 8
    if choice.chosen:
        around = (spot.left - FRAME, spot.top - FRAME, spot.right + FRAME - 1, spot.bottom + FRAME - 1)
        draw.rectangle(around, outline=_ACCENT, width=FRAME)
    name = f"view {choice.view}{', chosen' if choice.chosen else ''}"
    colour = _ACCENT if choice.chosen else _INK
    draw.text((spot.left, line), name, colour, _font(15))
    draw.text((spot.right, line), f"utility {choice.utility:.3f}", colour, _font(15), anchor="ra")
    third = (spot.right - spot.left) / len(_SCORES)
    for i, score in enumerate(_SCORES):
        at = spot.left + i * third
        draw.text((at, line + LINE), score, _SOFT, _font(13))
        draw.text((at, line + 2 * LINE - 3), f"{getattr(choice, score):.3f}", _INK, _font(14))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own face, so that every machine draws the same letters."""
    return ImageFont.load_default(size)


def _broken(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, broken between words."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
