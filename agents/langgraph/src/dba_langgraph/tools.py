"""Tools, by MCP at the gateway, in the name of whoever asks.

Owns the connections: anew for each use, so that the agent starts before the gateway is up and goes on
when it has been away. Must never call a tool in another user's name.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import McpError
from mcp.types import TextContent, Tool

log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Longest that a server may take to say what it has, in seconds."""

HELD = 1.0
"""A call of a reviewed tool that takes longer than this is being held, in seconds."""

USER_HEADER = "x-user-id"
"""The header that says for whom."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call came to."""

    text: str
    failed: bool


class AwayError(Exception):
    """A tool that cannot be reached; says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server of tools, and whether a platform reviewer may stand before it."""

    name: str
    url: str
    reviewed: bool


@dataclass(slots=True)
class _Connected:
    server: Server
    session: ClientSession
    tools: list[Tool]


@dataclass(slots=True)
class Toolbox:
    """Connections of one use."""

    limit: float
    allowed: Sequence[str]
    connected: list[_Connected] = field(default_factory=list)
    away: list[str] = field(default_factory=list)

    def offered(self) -> list[dict[str, Any]]:
        """What the model may call, as its API takes it."""
        return [
            {
                "name": tool.name,
                "description": tool.description or "",
                "input_schema": tool.inputSchema,
            }
            for one in self.connected
            for tool in one.tools
            if self._may(tool.name)
        ]

    def _may(self, tool: str) -> bool:
        return not self.allowed or tool in self.allowed

    def _with(self, tool: str) -> _Connected | None:
        having = (one for one in self.connected if any(known.name == tool for known in one.tools))
        return next(having, None) if self._may(tool) else None

    def is_reviewed(self, tool: str) -> bool:
        """Whether a platform reviewer may have to approve calls of this tool."""
        one = self._with(tool)
        return one is not None and one.server.reviewed

    def lacks(self, tool: str) -> bool:
        """Whether there is no such tool. Raises AwayError when that cannot be known now."""
        lacks = self._with(tool) is None
        if lacks and self.away and self._may(tool):
            raise AwayError(f"It cannot be reached: {', '.join(self.away)}.")
        return lacks

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> Answer:
        """Calls a tool."""
        one = self._with(tool)
        if one is None:
            return Answer(f"There is no tool {tool}.", failed=True)
        try:
            result = await one.session.call_tool(
                tool, dict(arguments), read_timeout_seconds=timedelta(seconds=self.limit)
            )
        except McpError as error:
            if error.error.code == httpx.codes.REQUEST_TIMEOUT:
                return Answer(
                    f"The call of {tool} was given up after {self.limit:.0f} s. "
                    "Whether it has run is not known.",
                    failed=True,
                )
            return Answer(f"The call of {tool} failed: {error}", failed=True)
        texts = [part.text for part in result.content if isinstance(part, TextContent)]
        text = "\n".join(texts) if texts else str(result.structuredContent or "")
        return Answer(text, failed=bool(result.isError))


class Servers:
    """Where tools are looked for."""

    def __init__(self, servers: Sequence[Server], allowed: Sequence[str], limit: float) -> None:
        """Calls take ``limit`` seconds at most; ``allowed`` names the tools, all when empty."""
        self._servers, self._allowed, self._limit = tuple(servers), tuple(allowed), limit

    async def offered(self, user: str) -> tuple[list[dict[str, Any]], list[str]]:
        """What the model may call for a user, and which servers are away."""
        async with self._open(user) as toolbox:
            return toolbox.offered(), toolbox.away

    async def call(
        self, user: str, tool: str, arguments: Mapping[str, Any], held: Callable[[], None]
    ) -> Answer:
        """Calls a tool for a user. Whatever comes is an answer for the model, word for word.

        Says ``held`` once when a call that a reviewer may hold takes its time. Raises AwayError when
        no call was made because nobody that answers has the tool.
        """
        begun = False
        try:
            async with self._open(user) as toolbox:
                if toolbox.lacks(tool):
                    return Answer(f"There is no tool {tool}.", failed=True)
                begun = True
                timer = asyncio.get_running_loop().call_later(HELD, held)
                if not toolbox.is_reviewed(tool):
                    timer.cancel()
                try:
                    return await toolbox.call(tool, arguments)
                finally:
                    timer.cancel()
        except AwayError:
            raise
        except Exception as error:
            # The library ends the whole connection where a gateway answers with a status.
            if not begun:
                raise AwayError(f"It cannot be reached: {_why(error)}.") from error
            return Answer(f"The call of {tool} failed: {_why(error)}", failed=True)

    @asynccontextmanager
    async def _open(self, user: str) -> AsyncIterator[Toolbox]:
        toolbox = Toolbox(limit=self._limit, allowed=self._allowed)
        async with AsyncExitStack() as stack:
            for server in self._servers:
                try:
                    one = await self._connect(stack, server, user)
                except Exception as error:
                    why = _why(error)
                    log.warning("no tools of %s at %s: %s", server.name, server.url, why)
                    toolbox.away.append(f"{server.name} ({why})")
                else:
                    toolbox.connected.append(one)
            yield toolbox

    async def _connect(self, stack: AsyncExitStack, server: Server, user: str) -> _Connected:
        # An answer may come as late as a reviewer decides; a connection not.
        timeout = httpx.Timeout(PATIENCE, read=self._limit + PATIENCE)
        async with AsyncExitStack() as own, asyncio.timeout(PATIENCE):
            http = await own.enter_async_context(
                httpx.AsyncClient(headers={USER_HEADER: user}, timeout=timeout)
            )
            read, write, _ = await own.enter_async_context(
                streamable_http_client(server.url, http_client=http)
            )
            session = await own.enter_async_context(ClientSession(read, write))
            await session.initialize()
            tools = (await session.list_tools()).tools
            stack.push_async_exit(own.pop_all())
        return _Connected(server, session, tools)


def _why(error: BaseException) -> str:
    """The first cause of an error; task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return str(error) or type(error).__name__
