"""Answer other programs on this machine: `/search`, and `/v1/embeddings` in the shape of OpenAI's.

Only the loopback address is served, under its own names: a page that a browser shows can neither read the answers
nor reach the server under a name of its own. Both are so unless its origin is allowed.
"""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asterisk.errors import InputError
from asterisk.search.index import Index
from asterisk.search.ranking import Mode

HOST = "127.0.0.1"
LARGEST_BODY, MOST_INPUTS, LONGEST_QUERY, MOST_HITS = 4_000_000, 2048, 10_000, 1000


class TooLarge(ValueError):
    """A request beyond the limits."""


async def read_json(request: Request) -> dict[str, Any]:
    """Read the body of a request.

    Raises:
        TooLarge: If it is larger than `LARGEST_BODY`.
        ValueError: If it is not a JSON object.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise TooLarge(f"a request may have {LARGEST_BODY:,} bytes")
    try:
        value = json.loads(body)
    except RecursionError as error:
        raise ValueError("the request is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("the request is not a JSON object")
    return value


def input_texts(value: Any) -> list[str]:
    """Return the texts to embed.

    Raises:
        TooLarge: If there are more than `MOST_INPUTS`.
        ValueError: If they are no texts: token numbers are those of another vocabulary.
    """
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError("input must be a text or a list of texts")
    if len(texts) > MOST_INPUTS:
        raise TooLarge(f"a request may have {MOST_INPUTS:,} texts")
    return texts


def embeddings(index: Index, request: dict[str, Any]) -> dict[str, Any]:
    """Embed the texts of a request as OpenAI's service does."""
    texts, dimensions = input_texts(request.get("input")), request.get("dimensions")
    if dimensions is not None and not isinstance(dimensions, int):
        raise ValueError("dimensions must be a number")
    vectors = index.encoder.encode(texts, truncate_dim=dimensions)
    tokens = sum(map(len, index.encoder.tokenizer.encode_batch_fast(texts)))

    def form(vector: np.ndarray) -> str | list[float]:
        if request.get("encoding_format") == "base64":
            return base64.b64encode(vector.astype("<f4").tobytes()).decode()
        return vector.tolist()

    return {
        "object": "list",
        "model": request.get("model", ""),
        "data": [
            {"object": "embedding", "index": number, "embedding": form(vector)}
            for number, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def search(index: Index, request: Request) -> dict[str, Any]:
    """Search with the parameters q, limit, mode, path, tag and since, the last in seconds since 1970."""
    parameters = request.query_params
    query, mode = parameters.get("q", ""), parameters.get("mode", "hybrid")
    if len(query) > LONGEST_QUERY:
        raise TooLarge(f"a query may have {LONGEST_QUERY:,} characters")
    if mode not in get_args(Mode):
        raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}")
    hits = index.search(
        query,
        min(int(parameters.get("limit", 10)), MOST_HITS),
        mode,  # type: ignore[arg-type]
        tuple(parameters.getlist("path")),
        tuple(parameters.getlist("tag")),
        float(parameters["since"]) if "since" in parameters else None,
    )
    return {"query": query, "hits": [hit.as_dict() for hit in hits]}


def application(index: Index, origins: list[str]) -> Starlette:
    """Return the application; pages of `origins` may use it from a browser."""
    lock = threading.Lock()  # one connection to the index, many threads

    def locked_search(request: Request) -> dict[str, Any]:
        with lock:
            return search(index, request)

    async def search_endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(locked_search, request))

    async def embeddings_endpoint(request: Request) -> JSONResponse:
        return JSONResponse(await run_in_threadpool(embeddings, index, await read_json(request)))

    async def refuse(_request: Request, error: Exception) -> JSONResponse:
        status = 413 if isinstance(error, TooLarge) else 400
        return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, status)

    middleware = [Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])]
    if origins:
        middleware.append(
            Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
        )
    return Starlette(
        routes=[
            Route("/search", search_endpoint),
            Route("/v1/embeddings", embeddings_endpoint, methods=["POST"]),
        ],
        middleware=middleware,
        exception_handlers={ValueError: refuse, TypeError: refuse, FileNotFoundError: refuse},
    )


def serve(index: Index, port: int, origins: list[str], ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        index: What to search.
        port: The port; 0 takes a free one.
        origins: Origins of pages that may ask from a browser.
        ready: Called with the address once it answers there.

    Raises:
        ValueError: If another program has the port.
    """
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise InputError(f"port {port} is taken; choose another with --port") from error
    _ = index.encoder, index.query_encoder  # loaded before the first request
    ready(f"http://{HOST}:{listener.getsockname()[1]}")
    uvicorn.Server(uvicorn.Config(application(index, origins), log_level="warning")).run(sockets=[listener])
