"""The Gemini API through google-genai: clients that keep their connections, one attempt a call."""

import os
from collections.abc import Mapping
from itertools import cycle
from typing import Any

import google.auth
import httpx
from google import genai
from google.auth.exceptions import GoogleAuthError
from google.genai import types

from r1pipe.errors import MissingError
from r1pipe.params.chains import Gemini
from r1pipe.synthesis.answer import read
from r1pipe.synthesis.request import Reply, Request

KEY_VARIABLE = "GEMINI_API_KEY"
VERTEX_VARIABLE = "GOOGLE_GENAI_USE_VERTEXAI"
PLACE_VARIABLES = ("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION")

_POOL = 16
"""Connections of one client: httpx looks at each of a client's connections for every request, which at 60 of them takes
longer than all the rest."""


class Service:
    """Sends requests; knows nothing of retries, limits and money."""

    def __init__(self, params: Gemini, *, connections: int) -> None:
        """Connect with what the environment holds: a key, or a Vertex AI project with its credentials.

        Raises:
            MissingError: if it lacks either.
        """
        access = _access(os.environ)
        self.vertex = bool(access["vertexai"])
        self._pools = [_pool() for _ in range(-(-connections // _POOL))]
        # google-genai sets the timeout of each request anew, and without one of its own to none.
        timeout_ms = round(1000 * params.timeout_s)
        clients = [
            genai.Client(
                http_options=types.HttpOptions(base_url=params.base_url, httpx_async_client=pool, timeout=timeout_ms),
                **access,
            )
            for pool in self._pools
        ]
        self.client, self._turns = clients[0], cycle(clients)

    async def generate(self, request: Request) -> Reply:
        """One attempt.

        Raises:
            APIError: if the service answers with another status than 200.
            httpx.RequestError: if no answer comes.
            MissingError: if Google Cloud does not take the credentials.
        """
        config = config_of(request)
        # Unparsed: the body may be malformed, and reading it here tells that from every other mistake.
        config.should_return_http_response = True
        try:
            response = await next(self._turns).aio.models.generate_content(
                model=request.model, contents=contents_of(request), config=config
            )
        except GoogleAuthError as error:
            raise _no_credentials(error) from error
        raw = response.sdk_http_response
        return read((raw and raw.body) or "", max_output_tokens=request.max_output_tokens)

    async def close(self) -> None:
        """Close the connections."""
        for pool in self._pools:
            await pool.aclose()


def _pool() -> httpx.AsyncClient:
    # No limit on how many are open: the caller has one, and requests that wait for a connection slow down all others.
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=None, max_keepalive_connections=_POOL))


def config_of(request: Request) -> types.GenerateContentConfig:
    """How it is to be answered."""
    return types.GenerateContentConfig(
        system_instruction=request.prompt.system or None,
        temperature=request.temperature,
        max_output_tokens=request.max_output_tokens,
        thinking_config=types.ThinkingConfig(thinking_budget=request.thinking_budget),
        # There are no functions to call; unless told so, google-genai logs for each request that it could call ten.
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )


def contents_of(request: Request) -> list[types.Content]:
    """The pictures, then the words."""
    pictures = [types.Part.from_bytes(data=picture.png, mime_type="image/png") for picture in request.prompt.pictures]
    return [types.Content(role="user", parts=[*pictures, types.Part.from_text(text=request.prompt.text)])]


def _access(environment: Mapping[str, str]) -> dict[str, Any]:
    if environment.get(VERTEX_VARIABLE, "").lower() not in ("1", "true"):
        key = environment.get(KEY_VARIABLE)
        if not key:
            raise MissingError(
                f"Expected an API key in the environment variable {KEY_VARIABLE}, or {VERTEX_VARIABLE}=true with "
                f"{' and '.join(PLACE_VARIABLES)}, found neither."
            )
        return {"vertexai": False, "api_key": key}
    absent = [name for name in PLACE_VARIABLES if not environment.get(name)]
    if absent:
        raise MissingError(f"Expected {' and '.join(PLACE_VARIABLES)} beside {VERTEX_VARIABLE}, found no {absent[0]}.")
    project, location = (environment[name] for name in PLACE_VARIABLES)
    return {"vertexai": True, "project": project, "location": location, "credentials": _credentials()}


def _credentials() -> Any:
    try:
        return google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])[0]
    except GoogleAuthError as error:
        raise _no_credentials(error) from None


def _no_credentials(error: GoogleAuthError) -> MissingError:
    return MissingError(f"Expected Google Cloud's application default credentials for Vertex AI, found: {error}")
