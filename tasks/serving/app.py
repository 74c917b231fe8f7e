"""The HTTP face of the server: routes, and errors as JSON."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from tasks.errors import ServiceError, UploadError
from tasks.params import Settings
from tasks.runtime import TITLES
from tasks.schema import Serve
from tasks.serving.answers import Answers, Health, ModelCard, Problem, RefusedFile, RefusedRelease
from tasks.serving.metrics import Metrics
from tasks.serving.page import PAGE
from tasks.serving.service import RefusedFiles, Service
from tasks.serving.uploads import FIELD

_REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": Problem} for code in (408, 413, 415, 422, 503)
}
# The body is read by hand, to keep the limits while reading; this is what /docs shows of it.
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": [FIELD], "properties": {FIELD: _FILES}}
            }
        },
    }
}


def create_app(settings: Settings, params: Serve) -> FastAPI:
    """The application; it loads the current release when it starts, and follows it."""
    service = Service(settings, params)
    app = FastAPI(title="Visionloop", lifespan=_lifespan(service))
    _add_errors(app)
    _add_prediction(app, service)
    _add_health(app, service)
    _add_model(app, service)
    return app


def _lifespan(service: Service) -> Any:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.writer.start()
        await service.follower.poll()
        following = asyncio.create_task(service.follower.follow())
        yield
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await asyncio.to_thread(service.close)

    return lifespan


def _add_prediction(app: FastAPI, service: Service) -> None:
    metrics = Metrics(service)

    @app.post("/v1/predict", responses=_REFUSALS, openapi_extra=_BODY)
    async def predict(request: Request) -> Answers:
        """Classify one or more images, all of them or none."""
        with metrics.request():
            return await service.predict(request)

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health/live")
    async def live() -> Health:
        """The process answers."""
        return Health(status="live")

    @app.get("/health/ready", responses={503: {"model": Health}})
    async def ready(response: Response) -> Health:
        """A model is loaded; 503 with the reason before that."""
        if service.follower.model is None:
            response.status_code = 503
            return Health(status="not ready", reason=service.follower.reason)
        return Health(status="ready", model_version=service.follower.model.version)


def _add_model(app: FastAPI, service: Service) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        return PAGE

    @app.get("/v1/model", responses={503: {"model": Problem}})
    async def model() -> ModelCard:
        """The model in service, and the newer release that was refused, if one was."""
        served, refused = service.model(), service.follower.refused
        return ModelCard(
            model_version=served.version,
            bundle_digest=served.bundle.digest,
            loaded=served.loaded,
            runs_on=TITLES[served.bundle.runtime],
            refused=RefusedRelease(version=refused.version, reason=refused.reason)
            if refused
            else None,
            **served.bundle.info.model_dump(exclude={"schema_version"}),
        )


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UploadError)
    async def upload(_: Request, error: UploadError) -> JSONResponse:
        files = error.files if isinstance(error, RefusedFiles) else []
        return _problem(error.status, str(error), files=files)

    @app.exception_handler(ServiceError)
    async def unavailable(_: Request, error: ServiceError) -> JSONResponse:
        return _problem(503, str(error), {"Retry-After": "1"})

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        where = f"{request.method} {request.url.path}: {error.detail}; see /docs"
        return _problem(error.status_code, where, error.headers)

    @app.exception_handler(Exception)
    async def defect(_: Request, error: Exception) -> JSONResponse:
        return _problem(500, f"the server failed ({type(error).__name__}); its log says more")


def _problem(
    status: int,
    message: str,
    headers: Mapping[str, str] | None = None,
    files: list[RefusedFile] | None = None,
) -> JSONResponse:
    problem = Problem(error=message, files=files or [])
    return JSONResponse(problem.model_dump(), status, headers=headers)
