"""Files out of a multipart request, with the limits kept while reading.

A request that is too large is refused at its Content-Length or at the first byte over
the limit, whichever comes first: it is never held whole.
"""

import asyncio
from collections.abc import AsyncGenerator
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from tasks.errors import UploadError
from tasks.schema import Serve

FIELD = "file"
_BODY_SECONDS = 60  # a client slower than this gives its place to another
_WAY_OUT = f"send images as multipart/form-data in field {FIELD!r} (curl -F {FIELD}=@image.png …)"


class Upload(NamedTuple):
    """A file as it was sent: up to 1 MB in memory, more on disk."""

    filename: str
    file: SpooledTemporaryFile[bytes]

    def read(self) -> bytes:
        """The whole file; closes it, so that its memory or disk is free again."""
        with self.file as stream:
            return stream.read()


async def read_uploads(request: Request, params: Serve) -> list[Upload]:
    """The request's images; raises UploadError (408, 413, 415, 422) naming the limit or field."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UploadError(_WAY_OUT, 415)
    limit = int(params.max_upload_mb * 1e6)
    _check_size(int(request.headers.get("content-length", 0)), limit)
    parser = MultiPartParser(
        request.headers, _limited(request, limit), max_files=params.max_images, max_fields=8
    )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            form = await parser.parse()
    except TimeoutError:
        raise UploadError(f"the upload took longer than {_BODY_SECONDS} s", 408) from None
    except MultiPartException as error:
        raise _refusal(error, params) from None
    return _files(form)


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        _check_size(size, limit)
        yield chunk


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise UploadError(
            f"the request is larger than {limit / 1e6:g} MB (serve.max_upload_mb); "
            "send fewer or smaller files",
            413,
        )


def _refusal(error: MultiPartException, params: Serve) -> UploadError:
    if error.message.startswith("Too many files"):
        return UploadError(
            f"the request holds more than {params.max_images} files (serve.max_images)", 413
        )
    return UploadError(f"{error.message} {_WAY_OUT}")


def _files(form: FormData) -> list[Upload]:
    uploads = []
    for field, value in form.multi_items():
        if field != FIELD:
            raise UploadError(f"unknown field {field!r}; {_WAY_OUT}")
        if not isinstance(value, UploadFile):
            raise UploadError(f"field {FIELD!r} holds text, not a file; {_WAY_OUT}")
        if value.filename or value.size:  # a browser sends an empty part when none is chosen
            uploads.append(Upload(value.filename or "unnamed", value.file))  # type: ignore[arg-type]
    if not uploads:
        raise UploadError(f"no file in the request; {_WAY_OUT}")
    return uploads
