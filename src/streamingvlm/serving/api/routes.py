"""What is asked once and answered once. Knows the service by its protocol; what is wrong it raises, `app` makes sentences of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import resources
from typing import Annotated

from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from pydantic import SkipValidation
from starlette.exceptions import HTTPException

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.described import METRICS, Alarm, Answer, CameraRow, Erased, Health, History, Jpeg, Results, Stats, answers
from streamingvlm.serving.api.parameters import AlarmsQuery, Asked, AuditQuery, EraseQuery, HistoryQuery, ResultsQuery, chosen, reachable
from streamingvlm.serving.cameras import Camera
from streamingvlm.serving.privacy.redactor import jpeg_of
from streamingvlm.serving.service import NotFound, Service

router = APIRouter()
PICTURE_S = 2.0  # how long the first look at a camera may take: its previews are made only while somebody looks
LOOKED_AT_S = 5.0
JPEG = {"Cache-Control": "no-store"}


def of(request: Request) -> Service:
    return request.scope["service"]


@router.get("/", include_in_schema=False)
async def page() -> Response:
    found = resources.files("streamingvlm.serving") / "page" / "index.html"
    if not found.is_file():
        raise HTTPException(404, "This service has no page; its cameras are at /api/cameras.")
    return FileResponse(str(found))


@router.get("/healthz", response_model=None, responses=answers(Health))
async def health(request: Request) -> Response:
    """200 while decisions can be made; what each camera does is told either way."""
    service = of(request)
    states = {camera["id"]: camera["state"] for camera in service.cameras()}
    process = service.stats()["processes"].get("analytics", {"alive": False})
    if process["alive"]:
        return JSONResponse({"status": "ok", "cameras": states, "store": service.store.status() if service.store else None})
    return JSONResponse({"error": "The analytics process is not running: no camera gets decisions until it is back.", "cameras": states}, 503)


@router.get("/metrics", response_class=PlainTextResponse, responses=METRICS)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    text, kind = request.app.state.telemetry.text(request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": kind})


@router.get("/api/cameras", response_model=None, responses=answers(list[CameraRow]))
async def cameras(request: Request) -> list[dict]:
    return of(request).cameras()


@router.post("/api/cameras", status_code=201, response_model=None, responses=answers(CameraRow, 201))
async def add(request: Request, camera: Annotated[SkipValidation[Camera], Body()]) -> dict:
    """Watch one more camera, as in cameras.yaml. The service checks it: its sentences hide what may be a password."""
    if not isinstance(camera, dict):
        raise UserError("The request's body is no JSON object.")
    return await of(request).add(camera)


@router.delete("/api/cameras/{name}", status_code=204)
async def remove(request: Request, name: str) -> None:
    await of(request).remove(name)


@router.get("/api/cameras/{name}/picture.jpg", response_class=Jpeg)
async def picture(request: Request, name: str) -> Response:
    """The newest preview."""
    service = of(request)
    chosen(name, service)
    until = time.monotonic() + PICTURE_S
    service.want_pictures([name], LOOKED_AT_S)
    while (found := service.picture(name)) is None:
        if time.monotonic() > until:
            raise HTTPException(503, f"There is no picture of {name!r} yet; ask again when it is live.", {"Retry-After": "2"})
        await asyncio.sleep(0.05)
    stamp, redacted = found
    return Response(jpeg_of(redacted), media_type="image/jpeg", headers=JPEG | {"X-Frame": str(stamp["frame"])})


@router.post("/api/cameras/{name}/ask", response_model=None, responses=answers(Answer))
async def ask(request: Request, name: str, question: Asked) -> dict:
    """Ask the commentator about a camera: {"question", "options"?} -> {"text", "at_s", "ms", …}. The commentary goes on as if nobody had."""
    return await of(request).ask(name, question.question, tuple(question.options))


@router.get("/api/results", response_model=None, responses=answers(Results))
async def results(request: Request, query: Annotated[ResultsQuery, Query()]) -> Response:
    """Newest records behind `since`: {"records", "missed": records that are kept no longer, "newest": the newest number there is}."""
    service = of(request)
    reachable(query.since, service)
    types = query.types.split(",") if query.types else None
    newest = service.results.newest
    records, missed = service.results.since(query.since, chosen(query.streams, service), types, query.limit)
    said = ",".join(record.json for record in records)  # written once, however many ask
    return Response(f'{{"records":[{said}],"missed":{missed},"newest":{newest}}}', media_type="application/json")


@router.get("/api/alarms", response_model=None, responses=answers(list[Alarm]))
async def alarms(request: Request, query: Annotated[AlarmsQuery, Query()]) -> list[dict]:
    """The newest alarms, newest first."""
    service, streams = of(request), query.stream.split(",") if query.stream else None
    found = {record["seq"]: record for record in service.results.since(0, streams, ["alarm"])[0]}
    if service.store and len(found) < query.limit:
        stored = await _stored(service.store.records, streams, ["alarm"], None, None, query.limit, True)
        found = {record["seq"]: record for record in stored} | found
    return [found[seq] for seq in sorted(found, reverse=True)[: query.limit]]


@router.get("/api/alarms/{name}.jpg", response_class=Jpeg)
async def alarm_picture(request: Request, name: str) -> Response:
    service = of(request)
    redacted = service.results.picture(name)
    if redacted is None and service.store:
        redacted = await _stored(service.store.picture, name)
    if redacted is None:
        raise NotFound(f"There is no picture {name[:40]!r} of an alarm, or no longer.")
    return Response(jpeg_of(redacted), media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})


@router.get("/api/stats", response_model=None, responses=answers(Stats))
async def stats(request: Request) -> dict:
    return of(request).stats()


@router.get("/api/history", response_model=None, responses=answers(History))
async def history(request: Request, query: Annotated[HistoryQuery, Query()]) -> dict:
    """What was stored between `from` and `to` (seconds since 1970), oldest first."""
    service = of(request)
    if service.store is None:
        raise NotFound("This service stores nothing: start it with a place to store records.")
    streams, types = (text.split(",") if text else None for text in (query.stream, query.types))
    return {"records": await _stored(service.store.records, streams, types, query.start, query.end, query.limit, False)}


@router.delete("/api/records", response_model=None, responses=answers(Erased))
async def erase(request: Request, query: Annotated[EraseQuery, Query()]) -> dict:
    """Delete for good what is stored, and kept here, of some cameras or of some time: {"deleted": records that were stored}."""
    service, streams = of(request), query.stream.split(",") if query.stream else None
    if query.stream is None and query.start is None and query.end is None:
        raise UserError("Say what is to be deleted: `stream`, `from` or `to`; `from=0` is everything.")
    if service.store is None:
        return {"deleted": service.results.erase(streams, query.start, query.end)}
    deleted = await _stored(service.store.erase, streams, query.start, query.end)
    service.results.erase(streams, query.start, query.end)
    return {"deleted": deleted}


@router.get("/datacard", response_class=PlainTextResponse)
async def datacard(request: Request) -> str:
    """What is seen, hidden and kept, and who can have it; in Markdown."""
    return await _stored(of(request).card)


@router.get("/api/audit")
async def audit(request: Request, query: Annotated[AuditQuery, Query()]) -> list[dict]:
    """Who saw and changed what, newest first."""
    gate = request.app.state.gate
    if gate is None:
        raise NotFound("This service asks nobody who they are, so it has no audit log.")
    return await _stored(gate.audit.rows, query.start, query.end, query.limit)


async def _stored(ask: Callable, *what):
    """Ask the store in a thread of its own; 503 where it can't answer just now."""
    try:
        return await asyncio.to_thread(ask, *what)
    except NotFound:
        raise
    except UserError as error:
        raise HTTPException(503, str(error)) from None
