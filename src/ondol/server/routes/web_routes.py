"""The page at ``/`` and the endpoint list at ``/docs``: static files, no foreign scripts.

Each file's one script and one style are allowed by their hashes; nothing else may run.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response


def pages(*, docs: bool) -> APIRouter:
    """Return the routes of the pages; ``/docs`` only where it is wanted."""
    routes = APIRouter(include_in_schema=False)
    routes.add_api_route("/", index, methods=["GET"])
    if docs:
        routes.add_api_route("/docs", endpoints, methods=["GET"])
    return routes


async def index() -> Response:
    """Return the page that asks questions."""
    return _page("index.html")


async def endpoints() -> Response:
    """Return the page that lists the endpoints."""
    return _page("docs.html")


def _page(name: str) -> Response:
    html, policy = _load(name)
    return Response(
        html,
        media_type="text/html",
        headers={
            "content-security-policy": policy,
            "referrer-policy": "no-referrer",
            "x-frame-options": "DENY",
            "cache-control": "no-cache",
        },
    )


@cache
def _load(name: str) -> tuple[str, str]:
    """Return a page and its policy."""
    html = (files("ondol.server") / "web" / name).read_text("utf-8")
    policy = (
        f"default-src 'none'; script-src {_hashes(html, 'script')}; "
        f"style-src {_hashes(html, 'style')}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hashes(html: str, tag: str) -> str:
    found = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in found]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
