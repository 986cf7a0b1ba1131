"""A picture that stands in a page itself."""

import base64
import io

from PIL import Image


def jpeg_uri(picture: Image.Image, *, quality: int) -> str:
    """The picture as a data URI; `quality` as JPEG has it, 1 to 95."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
