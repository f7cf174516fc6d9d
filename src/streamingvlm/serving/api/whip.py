"""WHIP (RFC 9725): a browser or a sender pushes WebRTC to a camera. Knows no WebRTC: it hands an offer on and the answer back."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from streamingvlm.base.errors import UserError
from streamingvlm.serving.api.described import SDP_BODY, Sdp

router = APIRouter(prefix="/whip")


@router.post("/{name}", status_code=201, response_class=Sdp, openapi_extra=SDP_BODY)
async def offer(request: Request, name: str) -> Response:
    """An SDP offer -> 201, its answer, and where the session is."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/sdp":
        raise HTTPException(415, "An offer's Content-Type is application/sdp.", {"Accept-Post": "application/sdp"})
    try:
        sdp = (await request.body()).decode()
    except UnicodeDecodeError:
        raise UserError("The offer is no text in UTF-8.") from None
    if not sdp.startswith("v=0") or "m=video" not in sdp:
        raise UserError("The body is no SDP offer of a video: it begins with `v=0` and has an `m=video` line.")
    resource, answer = await request.scope["service"].offer(name, sdp)
    return Response(answer, 201, {"Location": f"/whip/{name}/{resource}"}, "application/sdp")


@router.delete("/{name}/{resource}", status_code=204)
async def hang_up(request: Request, name: str, resource: str) -> None:
    await request.scope["service"].hang_up(resource)
