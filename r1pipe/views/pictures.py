"""A picture that stands in a page itself."""

import base64
import io

from PIL import Image


def enlarged(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture in another size as `Cameras.fitted` has it: the same width, rows cut or black above and below alike."""
    width, height = size
    scaled = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.BICUBIC)
    top = (scaled.height - height) // 2
    return scaled.crop((0, top, width, top + height))


def jpeg_uri(picture: Image.Image, *, quality: int) -> str:
    """The picture as a data URI; `quality` as JPEG has it, 1 to 95."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
