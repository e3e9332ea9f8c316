"""Tools, by MCP at the gateway, in the name of whoever asks.

Owns the connections: anew for each use, so that the agent starts before the gateway is up and goes on when it
has been away. Must never call a tool in another user's name, and never wait for an answer that cannot come.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError
from mcp.types import (
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ClientRequest,
    TextContent,
    Tool,
)

from dba_langgraph import words

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Longest that a server may take to say what it has, in seconds."""

HELD = 1.0
"""A call of a reviewed tool that takes longer than this is being held, in seconds."""

RETURN = 10.0
"""Longest that a gateway may be away after a connection was lost, in seconds."""

AGAIN = 0.25
"""How often it is tried then, in seconds."""

GRACE = 2.0
"""From the end of an answer's bytes until it must have been understood, in seconds."""

SILENCE = 30.0
"""How long a server that has said nothing at all is taken for away, in seconds."""

MOST_TOLD = 2000
"""Letters of a refusal that are told."""

USER_HEADER = "x-user-id"
"""The header that says for whom."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    text: str
    failed: bool


class AwayError(Exception):
    """No call was made, because a tool cannot be reached; says where and why."""

    def __init__(self, text: str, why: str = "it cannot be reached") -> None:
        """``why`` is said of the one server that was asked."""
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Server:
    """A server of tools, and whether a platform reviewer may stand before it."""

    name: str
    url: str
    reviewed: bool


class _Stream(httpx.AsyncByteStream):
    """The bytes of an answer; says when there are no more."""

    def __init__(self, inner: httpx.AsyncByteStream, ended: asyncio.Event) -> None:
        self._inner, self._ended = inner, ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._inner:
                yield piece
        finally:
            self._ended.set()

    async def aclose(self) -> None:
        await self._inner.aclose()
        self._ended.set()


class _Wire(httpx.AsyncBaseTransport):
    """What the MCP library does not tell of an HTTP exchange: that a call's ended, and a refusal's words."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()
        self.called = False
        self.begun = False
        self.lost = False
        self.ended = asyncio.Event()
        self.refusal: str | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            # The end of a session is a courtesy, and worth no waiting.
            async with asyncio.timeout(GRACE):
                return await self._inner.handle_async_request(request)
        posted = await request.aread() if request.method == "POST" else b""
        calls = bool(posted) and json.loads(posted).get("method") == "tools/call"
        answer = await (self._call(request) if calls else self._inner.handle_async_request(request))
        if posted and answer.is_error:
            body = (await answer.aread()).decode(errors="replace").strip()[:MOST_TOLD]
            self.refusal = f"HTTP {answer.status_code}" + (f": {body}" if body else "")
        if calls and answer.is_error:
            self.ended.set()
        elif calls and isinstance(answer.stream, httpx.AsyncByteStream):
            answer.stream = _Stream(answer.stream, self.ended)
        return answer

    async def _call(self, request: httpx.Request) -> httpx.Response:
        """Sends a call; knows afterwards whether it was sent, and whether an answer had begun."""
        self.called = True
        try:
            answer = await self._inner.handle_async_request(request)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            self.called = False
            raise
        except httpx.TransportError as error:
            self.lost = not isinstance(error, httpx.TimeoutException)
            self.ended.set()
            raise
        self.begun = True
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


class Servers:
    """Where tools are looked for."""

    def __init__(self, servers: Sequence[Server], allowed: Sequence[str], limit: float) -> None:
        """Calls take ``limit`` seconds at most.

        ``allowed`` names the tools, all when empty; ``SERVER/TOOL`` is a tool of that server alone.
        """
        # Where two have a tool of the same name, the one counts that a reviewer may stand before.
        self._servers = tuple(sorted(servers, key=lambda server: not server.reviewed))
        self._allowed, self._limit = frozenset(allowed), limit
        self._known: dict[str, Server] = {}
        self._silent: dict[str, tuple[float, str]] = {}

    async def offered(self, user: str) -> tuple[list[dict[str, Any]], list[str]]:
        """What the model may call for a user, as its API takes it, and which servers are away."""
        found = await asyncio.gather(*(self._list(server, user) for server in self._servers))
        offered: dict[str, dict[str, Any]] = {}
        away = [tools for tools in found if isinstance(tools, str)]
        for server, tools in zip(self._servers, found, strict=True):
            for tool in tools if isinstance(tools, list) else []:
                names = {tool.name, f"{server.name}/{tool.name}"}
                if tool.name in offered or (self._allowed and not self._allowed & names):
                    continue
                self._known[tool.name] = server
                offered[tool.name] = {
                    "name": tool.name,
                    "description": tool.description or "",
                    "input_schema": tool.inputSchema,
                }
        return list(offered.values()), away

    async def call(
        self, user: str, tool: str, arguments: Mapping[str, Any], tell: Callable[[str], None]
    ) -> Answer:
        """Calls a tool for a user. Whatever comes is an answer for the model, word for word.

        Tells in a sentence that a reviewer holds the call, and that it is made once more. Raises AwayError
        when no call was made because no server that answers has the tool.
        """
        server = await self._having(user, tool)
        if server is None:
            return Answer(f"There is no tool {tool}.", failed=True)
        since = datetime.now(UTC)

        async def attempt() -> Answer | None:
            return await self._attempt(server, user, tool, arguments, lambda: tell(words.held(tool, since)))

        answer = await attempt()
        if answer is None and server.reviewed:
            # The gate kept its request; an approval that was used is not there for a second call.
            tell(words.repeating(tool))
            answer = await _again(tool, attempt)
        answer = answer or Answer(words.unanswered(tool), failed=True)
        log.info("called %s for %s: %s", tool, user, "an error" if answer.failed else "ok")
        return answer

    async def _attempt(
        self, server: Server, user: str, tool: str, arguments: Mapping[str, Any], held: Callable[[], None]
    ) -> Answer | None:
        """The answer to one call; none where the connection was lost before one began."""
        wire, answer = _Wire(), None
        try:
            async with self._session(server, user, wire) as session:
                timer = asyncio.get_running_loop().call_later(HELD, held) if server.reviewed else None
                try:
                    answer = await self._exchange(session, wire, tool, arguments)
                finally:
                    if timer:
                        timer.cancel()
        except Exception as error:
            # The library ends the whole connection where a gateway answers with a status.
            why = wire.refusal or words.plain(error)
            if not wire.called:
                raise AwayError(f"{server.name} ({why})", why) from error
            log.warning("a call of %s ended with its connection: %r", tool, words.first(error))
            if answer is None and not wire.lost:
                broken = wire.begun and not wire.refusal
                text = words.broken_off(tool) if broken else f"The call of {tool} failed: {why}."
                answer = Answer(text, failed=True)
        # What had been answered is answered, however the connection ended.
        return answer

    async def _exchange(
        self,
        session: ClientSession,
        wire: _Wire,
        tool: str,
        arguments: Mapping[str, Any],
    ) -> Answer | None:
        # Not by the library's own `call_tool`: that lists the tools after the call, to look at the answer's
        # form, and calls what has run a failure when the list cannot be had.
        params = CallToolRequestParams(name=tool, arguments=dict(arguments))
        calling = asyncio.create_task(
            session.send_request(
                ClientRequest(CallToolRequest(params=params)),
                CallToolResult,
                request_read_timeout_seconds=timedelta(seconds=self._limit),
            )
        )
        ending = asyncio.create_task(wire.ended.wait())
        try:
            await asyncio.wait({calling, ending}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({calling}, timeout=GRACE)
            if not calling.done():
                if wire.lost:
                    return None
                refused = f"The call of {tool} failed: {wire.refusal}."
                return Answer(refused if wire.refusal else words.broken_off(tool), failed=True)
            return _read(calling.result())
        except McpError as error:
            if error.error.code == httpx.codes.REQUEST_TIMEOUT:
                given_up = f"The call of {tool} was given up after {self._limit:.0f} s."
                return Answer(f"{given_up} Whether it has run is not known.", failed=True)
            return Answer(f"The call of {tool} failed: {wire.refusal or error}", failed=True)
        finally:
            for task in (calling, ending):
                task.cancel()

    async def _having(self, user: str, tool: str) -> Server | None:
        """The server that has a tool; none where there is no such tool."""
        if tool not in self._known:
            _, away = await self.offered(user)
            if tool not in self._known and away:
                raise AwayError(", ".join(away))
        return self._known.get(tool)

    async def _list(self, server: Server, user: str) -> list[Tool] | str:
        """The tools of a server; or that it is away, and why."""
        loop = asyncio.get_running_loop()
        until, why = self._silent.get(server.name, (0.0, ""))
        if loop.time() < until:
            return why
        wire, tools = _Wire(), None
        try:
            async with asyncio.timeout(PATIENCE), self._session(server, user, wire) as session:
                tools = (await session.list_tools()).tools
        except Exception as error:
            if tools is None:
                # A query may be a secret.
                address, _, query = server.url.partition("?")
                why = f"{server.name} ({wire.refusal or words.plain(error)})"
                why = why.replace(query, "…") if query else why
                log.warning("no tools of %s at %s: %s", server.name, address, why)
                if isinstance(words.first(error), TimeoutError):
                    # One that says nothing makes everybody wait: not every time.
                    self._silent[server.name] = (loop.time() + SILENCE, why)
                return why
        return tools or []

    @asynccontextmanager
    async def _session(self, server: Server, user: str, wire: _Wire) -> AsyncIterator[ClientSession]:
        # An answer may come as late as a reviewer decides; a connection not.
        timeout = httpx.Timeout(PATIENCE, read=self._limit + PATIENCE)
        async with (
            httpx.AsyncClient(
                transport=wire, headers={USER_HEADER: user}, timeout=timeout, trust_env=False
            ) as http,
            streamable_http_client(server.url, http_client=http) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            async with asyncio.timeout(PATIENCE):
                await session.initialize()
            yield session


async def _again(tool: str, attempt: Callable[[], Awaitable[Answer | None]]) -> Answer:
    """Makes a reviewed call once more. A gateway that is just being replaced is waited for."""
    loop = asyncio.get_running_loop()
    until = loop.time() + RETURN
    while True:
        try:
            answer = await attempt()
        except AwayError as error:
            if loop.time() > until:
                return Answer(words.lost_and_away(tool, error.why), failed=True)
            await asyncio.sleep(AGAIN)
        else:
            return answer or Answer(words.lost_twice(tool), failed=True)


def _read(result: CallToolResult) -> Answer:
    texts = [part.text for part in result.content if isinstance(part, TextContent)]
    text = "\n".join(texts) if texts else str(result.structuredContent or "")
    return Answer(text, failed=bool(result.isError))
