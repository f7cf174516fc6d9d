"""The HTTP application of a service: cameras, results, alarms, history, pictures, WHIP, health, metrics, the page. WebSockets are in `sockets`.

    app = application(service)          # no globals: as many as you like
    async with listening(app, "127.0.0.1", 8000) as address: ...      # (listen.py)

Whatever goes wrong is one sentence, {"error": "…"}, and never a traceback. Knows no camera and no model: it asks `service.Service`.
"""

from __future__ import annotations

from http import HTTPStatus
from importlib import resources

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from streamingvlm.base.errors import UserError
from streamingvlm.serving.access.door import Door
from streamingvlm.serving.access.gate import Denied, Gate
from streamingvlm.serving.access.sources import Refused
from streamingvlm.serving.api import described, guard, parameters, routes, sockets, whip
from streamingvlm.serving.api.telemetry import Telemetry
from streamingvlm.serving.service import Busy, Conflict, NotFound, Service

STATUS = {NotFound: 404, Conflict: 409, Busy: 429, Refused: 403, Denied: 403}
PAGE = resources.files("streamingvlm.serving") / "page"


def application(service: Service, gate: Gate | None = None) -> FastAPI:
    """All doors of HTTP to this service. `gate`: who may come in; none: whoever is on this machine."""
    app = FastAPI(title="StreamingVLM", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json",
                  responses=described.WRONG)
    app.state.gate = gate
    app.state.telemetry = Telemetry(service)
    for part in (routes, whip, sockets):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=str(PAGE)), name="static")
    app.add_middleware(Door, service=service, gate=gate)
    app.add_middleware(guard.Guard)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    app.add_exception_handler(Exception, _our_fault)
    return app


def status_of(error: UserError) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 422)


async def _user_error(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, status_of(error) if isinstance(error, UserError) else 500)


async def _http_error(request: Request, error: Exception) -> Response:
    status, said, headers = error.status_code, error.detail, error.headers
    if said == HTTPStatus(status).phrase:
        said = {404: f"There is nothing at {request.url.path[:80]}.",
                405: f"{request.method[:20]} is not for {request.url.path[:80]}."}.get(status, f"{said}.")
    return JSONResponse({"error": said}, status, headers)


async def _wrong_parameter(request: Request, error: Exception) -> Response:
    route = request.scope.get("route")
    described = request.app.openapi()["paths"].get(getattr(route, "path", ""), {}).get(request.method.lower(), {})
    known = [parameter["name"] for parameter in described.get("parameters", []) if parameter["in"] == "query"]
    return JSONResponse({"error": parameters.sentence(error.errors(), known)}, 422)


async def _our_fault(request: Request, error: Exception) -> Response:
    """The traceback goes to the log: Starlette raises it again behind this answer."""
    return JSONResponse({"error": "Something went wrong inside the service; its log says what."}, 500)
