"""Images inside a page: as data URIs, so that the page asks the network for nothing."""

import base64
import io

import numpy as np

from tasks.pixels import Pixels

TINY = 96  # pixels: up to here images are stored as they are and enlarged by the browser
_THUMBNAIL = 160


def data_uri(image: Pixels) -> str:
    """An image uint8 H×W×3 inside a URI: small ones as PNG, others as a JPEG thumbnail."""
    from PIL import Image

    picture, stream = Image.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    if max(picture.size) <= TINY:
        picture.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        picture.save(stream, "JPEG", quality=85)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
