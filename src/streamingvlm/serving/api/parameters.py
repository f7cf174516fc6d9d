"""What may stand behind the `?` of an address, for HTTP and WebSocket alike, or in a question, and what is said where it is wrong: one sentence.

    wanted = read(WatchQuery, websocket.query_params)      # UserError
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from streamingvlm.base.errors import UserError
from streamingvlm.serving.results import TYPES
from streamingvlm.serving.service import NotFound, Service


def _names(text: str) -> str:
    if not all(text.split(",")):
        raise ValueError("must be names with a comma between them")
    return text


def _types(text: str) -> str:
    if wrong := [name for name in text.split(",") if name not in TYPES]:
        raise ValueError(f"must be some of {', '.join(TYPES)}, not {wrong[0][:40]!r}")
    return text


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError("must be seconds since 1970")
    return number


# The patterns are for the description; the validators say what is wrong in a sentence.
Names = Annotated[str, Field(max_length=4000, json_schema_extra={"pattern": "^[^,]+(,[^,]+)*$"}), AfterValidator(_names)]
Types = Annotated[str, Field(max_length=100, json_schema_extra={"pattern": "^({0})(,({0}))*$".format("|".join(TYPES))}), AfterValidator(_types)]
Moment = Annotated[float, AfterValidator(_finite)]
Seq = Annotated[int, Field(ge=0, lt=2**53)]


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid")


class WatchQuery(Query):
    since: Seq | None = None
    streams: Names | None = None
    types: Types | None = None


class ResultsQuery(WatchQuery):
    since: Seq = 0
    limit: int = Field(500, ge=1, le=5000)


class PicturesQuery(Query):
    streams: Names | None = None
    fps: float = Field(5.0, gt=0, le=30)


class AlarmsQuery(Query):
    limit: int = Field(50, ge=1, le=1000)
    stream: Names | None = None


class Span(Query):
    """From a moment up to another, in seconds since 1970; without an end on the side that is not said."""

    start: Moment | None = Field(None, alias="from")
    end: Moment | None = Field(None, alias="to")


class AuditQuery(Span):
    limit: int = Field(1000, ge=1, le=10000)


class EraseQuery(Span):
    stream: Names | None = None


class HistoryQuery(Span):
    stream: Names | None = None
    types: Types | None = None
    limit: int = Field(1000, ge=1, le=10000)


class Asked(BaseModel):
    """The body of a question. With `options` one of them is the answer."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1, max_length=1000)
    options: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default=[], max_length=50)


Model = TypeVar("Model", bound=Query)


def read(model: type[Model], parameters: Mapping[str, str]) -> Model:
    """What `parameters` say; UserError where one is unknown or wrong."""
    try:
        return model.model_validate(dict(parameters))
    except ValidationError as error:
        raise UserError(sentence(error.errors(), [field.alias or name for name, field in model.model_fields.items()])) from None


def sentence(errors: Sequence[dict], known: Iterable[str] = ()) -> str:
    """The first of pydantic's errors, for a person."""
    where = [str(part) for part in errors[0]["loc"] if part not in {"query", "body", "path"}]
    name, kind = (where[-1] if where else "The request's body")[:60], errors[0]["type"]
    if kind == "extra_forbidden":
        return f"There is no parameter {name!r}; known are: {', '.join(sorted(known))}."
    if kind == "json_invalid":
        return "The request's body is no JSON."
    if kind == "missing":
        return f"{name} is missing."
    said = errors[0]["msg"].removeprefix("Value error, ").replace("Input should", "should").rstrip(".")
    return f"{name}: {said}."


def chosen(names: str | None, service: Service) -> list[str] | None:
    """The cameras named, None for all. NotFound where there is no such camera."""
    if names is None:
        return None
    known = [camera["id"] for camera in service.cameras()]
    for name in names.split(","):
        require(name, known)
    return names.split(",")


def require(name: str, known: list[str]) -> None:
    if name not in known:
        some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")
        raise NotFound(f"There is no camera {name[:60]!r}; " + (f"there are {some}." if known else "none is watched yet."))


def reachable(since: int | None, service: Service) -> int | None:
    """`since`, if it is of the past."""
    if since is not None and since > service.results.newest:
        raise UserError(f"since={since} is in the future: the newest record is {service.results.newest}.")
    return since
