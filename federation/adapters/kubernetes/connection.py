"""One API server, by the official client's asyncio side, with its failures in our words.

Decides: which of the server's answers are temporary, how long a request may take, that a watch
which says nothing for too long is dead.
Leaves to others: what is asked (``resources``, ``reflector``, ``statuses``).
Invariants: no foreign exception leaves this file; every request has a time-out; a token that is
renewed on disk is used: a Pod's is read again by the client itself, a kubeconfig's here. (A client
certificate in a kubeconfig is read once.)
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException, OpenApiException
from kubernetes.aio.config.config_exception import ConfigException

from federation.ports import PortError, TemporaryError

REQUEST_TIMEOUT_S = 30.0
"""For one page of a list or one write; an API server ends requests of its own after 60 s."""

MESSAGE_MAX = 500
"""Characters kept of what a server says about an error."""

LOOK_AGAIN_S = 1.0
"""At most so often a kubeconfig is looked at for a new token."""

_UNREADABLE = (ConfigException, OSError, ValueError)
_NO_KUBECONFIG = (yaml.YAMLError, TypeError, KeyError, AttributeError)
"""What the client raises, since it takes the file's form for granted."""

APPLY = "application/apply-patch+yaml"
"""Content type of a server-side apply."""

_LASTING = (
    "exceeded quota",
    "being terminated",
    "denied the request",
    "denied request",
    "violates PodSecurity",
)
"""What a 403 says that is about the object and not about who asks: admission, which gives the same
answer until somebody changes something else."""

log = logging.getLogger(__name__)

Query = Sequence[tuple[str, str]]
Json = dict[str, Any]


class ApiServerAway(TemporaryError):  # noqa: N818 - reads as a fact where it is caught
    """The API server cannot be reached, is too slow or overloaded."""


class ResourceExpired(TemporaryError):  # noqa: N818
    """The resource version asked for is no longer kept (410): list again."""


class ChangedMeanwhile(TemporaryError):  # noqa: N818
    """The object is no longer at the version that the write rests on (409)."""


class ResourceAbsent(PortError):  # noqa: N818
    """There is no such object, or its kind is not served (404)."""


class AccessDenied(TemporaryError):  # noqa: N818
    """Our credentials or rights do not do (401, 403).

    Temporary, since both can be given back at any time, and an API server that has just started
    refuses everyone until it has read its roles.
    """


class ApiServerRefused(PortError):  # noqa: N818
    """The server answered and said no to the request itself."""


class KubeconfigError(PortError):
    """The credentials cannot be read, so that there is nobody to ask."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How the API server is found.

    ``kubeconfig`` is a file, ``context`` one of its contexts (default: the current one). Without a
    file it is the Pod's own service account.
    """

    kubeconfig: Path | None = None
    context: str | None = None


class Connection:
    """Requests to one API server. Close it when done (``connected``)."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api
        self._may_not_write: Callable[[], PortError | None] = lambda: None

    def __repr__(self) -> str:
        return f"Connection({self.server})"

    @property
    def server(self) -> str:
        """The server's URL, for messages."""
        return str(self._api.configuration.host)

    def fenced(self, why_not: Callable[[], PortError | None]) -> Connection:
        """The same connection, whose writes raise what ``why_not`` says instead of being sent."""
        fenced = Connection(self._api)
        fenced._may_not_write = why_not
        return fenced

    async def get(self, path: str, query: Query = ()) -> Json:
        """The JSON at ``path``. Raises ``PortError``."""
        return await self._json("GET", path, query)

    async def post(self, path: str, body: Json) -> Json:
        """Create an object. Raises ``PortError``; ``ChangedMeanwhile`` when it exists."""
        return await self._json("POST", path, body=body)

    async def put(self, path: str, body: Json) -> Json:
        """Replace an object at its ``metadata.resourceVersion``. Raises ``PortError``."""
        return await self._json("PUT", path, body=body)

    async def delete(self, path: str, *, seen: Json | None = None) -> None:
        """Delete an object; one that is not there is no error.

        With ``seen``, its metadata as read, only the very object in that very version. Raises
        ``PortError``; ``ChangedMeanwhile`` when it is another one by now.
        """
        body: Json | None = None
        if seen is not None:
            preconditions = {name: seen[name] for name in ("uid", "resourceVersion")}
            body = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        try:
            await self._json("DELETE", path, body=body)
        except ResourceAbsent:
            return

    async def apply(self, path: str, body: Json, *, manager: str) -> Json:
        """Server-side apply as ``manager``, which takes over fields that others hold.

        Raises ``PortError``; ``ChangedMeanwhile`` when ``body`` names an older resource version.
        """
        query = [("fieldManager", manager), ("force", "true")]
        return await self._json("PATCH", path, query, body=body, content_type=APPLY)

    async def watch(
        self, path: str, query: Query, *, silence_s: float
    ) -> AsyncGenerator[Json, None]:
        """Events of a watch until the server ends it.

        Raises ``ApiServerAway`` when nothing, not even a bookmark or the end, comes for
        ``silence_s``; ``ResourceExpired`` when the version to start at is gone.
        """
        what = f"watching {path}"
        response = await self._send("GET", path, [("watch", "true"), *query], what=what)
        try:
            while line := await _line(response, silence_s, what):
                event = _parsed(line, what)
                if event.get("type") == "ERROR":
                    raise _of_status(what, event.get("object", {}))
                yield event
        finally:
            response.close()

    async def lines(self, path: str, query: Query) -> AsyncGenerator[str, None]:
        """The lines of a text, such as a Pod's log; with ``follow`` for as long as it is written.

        Raises ``PortError``.
        """
        what = f"reading {path}"
        response = await self._send("GET", path, query, what=what, accept="*/*")
        try:
            while line := await response.content.readline():
                yield line.decode(errors="replace")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ApiServerAway(f"{what}: {_said(error)}") from error
        finally:
            response.close()

    async def server_time_s(self, *, timeout_s: float) -> float | None:
        """Ask for a sign of life: the server's clock (Unix time, whole seconds), if it tells it.

        Raises ``ApiServerAway`` when nothing comes in ``timeout_s``, and other ``PortError``.
        """
        what = "GET /version"
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send("GET", "/version", (), what=what)
                await response.read()
        except TimeoutError as error:
            raise ApiServerAway(f"{what}: no answer in {timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            raise ApiServerAway(f"{what}: {_said(error)}") from error
        try:
            return parsedate_to_datetime(response.headers["Date"]).timestamp()
        except (KeyError, ValueError):
            return None

    async def close(self) -> None:
        """Release connections."""
        await self._api.close()  # type: ignore[no-untyped-call]

    async def _json(
        self,
        method: str,
        path: str,
        query: Query = (),
        *,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Json:
        what = f"{method} {path}"
        if method != "GET" and (refusal := self._may_not_write()) is not None:
            raise refusal
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                response = await self._send(
                    method, path, query, body=body, content_type=content_type, what=what
                )
                return _parsed(await response.read(), what)
        except TimeoutError as error:
            raise ApiServerAway(f"{what}: no answer in {REQUEST_TIMEOUT_S:g} s") from error
        except aiohttp.ClientError as error:
            raise ApiServerAway(f"{what}: {_said(error)}") from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        what: str,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> aiohttp.ClientResponse:
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query),
                header_params={"Accept": accept, "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            sent = await self._api.call_api(*request, _request_timeout=_without_limit())
        except ApiException as error:
            raise _of_code(what, error.status or 0, str(error.reason or error)) from error
        except (aiohttp.ClientError, OSError, OpenApiException) as error:
            raise ApiServerAway(f"{what}: {_said(error)}") from error
        response: aiohttp.ClientResponse = sent.response
        if response.status >= 400:
            raise await _refusal(response, what)
        return response


def _without_limit() -> aiohttp.ClientTimeout:
    """The caller bounds the time: a watch is long, and its silence is bounded instead."""
    return aiohttp.ClientTimeout(total=None, sock_connect=10)


async def _line(response: aiohttp.ClientResponse, silence_s: float, what: str) -> bytes:
    try:
        async with asyncio.timeout(silence_s):
            return await response.content.readline()
    except TimeoutError as error:
        raise ApiServerAway(f"{what}: silent for {silence_s:g} s") from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ApiServerAway(f"{what}: {_said(error)}") from error


def _said(error: BaseException) -> str:
    """What an error says, or its name: some of aiohttp's say nothing."""
    return str(error) or type(error).__name__


def _parsed(data: bytes, what: str) -> Json:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ApiServerAway(f"{what}: the answer is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ApiServerAway(f"{what}: the answer is no JSON object")
    return value


async def _refusal(response: aiohttp.ClientResponse, what: str) -> PortError:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            text = await response.text()
    except (TimeoutError, aiohttp.ClientError, OSError):
        text = response.reason or ""
    finally:
        response.close()
    try:
        status = json.loads(text)
    except ValueError:
        status = None
    if isinstance(status, dict):
        return _of_status(what, {"code": response.status, **status})
    return _of_code(what, response.status, text)


def _of_status(what: str, status: Mapping[str, Any]) -> PortError:
    return _of_code(what, int(status.get("code") or 0), str(status.get("message") or "no message"))


def _of_code(what: str, code: int, message: str) -> PortError:
    text = f"{what}: {code}: {message[:MESSAGE_MAX].strip()}"
    if code == 403 and any(sign in message for sign in _LASTING):
        return ApiServerRefused(text)
    if code in (401, 403):
        return AccessDenied(text)
    if code == 404:
        return ResourceAbsent(text)
    if code == 409:
        return ChangedMeanwhile(text)
    if code == 410:
        return ResourceExpired(text)
    if code == 429 or code >= 500 or code == 0:
        return ApiServerAway(text)
    return ApiServerRefused(text)


class _Kubeconfig:
    """A kubeconfig whose token is read again when the file has changed."""

    def __init__(self, settings: ConnectionSettings, path: Path) -> None:
        self._settings = settings
        self._path = path
        self._read: tuple[int, int] | None = None
        self._looked_s = 0.0

    async def load(self, configuration: client.Configuration) -> None:
        """Read all of it into ``configuration``, and the token again from now on."""
        self._read = self._version()
        await self._read_into(configuration)
        # The client's own hook renews tokens of some providers.
        own = configuration.refresh_api_key_hook

        async def refresh(configuration: client.Configuration) -> None:
            await self._refresh(configuration)
            if own is not None and asyncio.iscoroutine(waiting := own(configuration)):
                await waiting

        configuration.refresh_api_key_hook = refresh  # type: ignore[assignment]

    async def _refresh(self, configuration: client.Configuration) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s < LOOK_AGAIN_S:
            return
        self._looked_s = now_s
        fresh = client.Configuration()
        try:
            version = self._version()
            if version == self._read:
                return
            await self._read_into(fresh)
        except (*_UNREADABLE, *_NO_KUBECONFIG) as error:
            # It may be half written; the token that there was may do still.
            log.warning(
                "the kubeconfig cannot be read again",
                extra={"path": str(self._path), "reason": str(error)},
            )
            return
        self._read = version
        configuration.api_key = fresh.api_key
        log.info("the kubeconfig's token was read again", extra={"path": str(self._path)})

    async def _read_into(self, configuration: client.Configuration) -> None:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(self._path),
            context=self._settings.context,
            client_configuration=configuration,
        )

    def _version(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_ino


@asynccontextmanager
async def connected(settings: ConnectionSettings) -> AsyncGenerator[Connection, None]:
    """A connection by ``settings``. Raises ``KubeconfigError``; nothing is asked yet."""
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is not None:
            await _Kubeconfig(settings, settings.kubeconfig).load(configuration)
        else:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
    except _UNREADABLE as error:
        raise KubeconfigError(
            f"reading credentials for Kubernetes: {error}; name a kubeconfig, or run as a Pod with "
            "a service account"
        ) from error
    except _NO_KUBECONFIG as error:
        why = " ".join(str(error).split())
        raise KubeconfigError(
            f"reading credentials for Kubernetes: {settings.kubeconfig} is no kubeconfig: {why}"
        ) from error
    connection = Connection(client.ApiClient(configuration))
    try:
        yield connection
    finally:
        await connection.close()
