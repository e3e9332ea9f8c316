"""An MCP server made of the official `mcp` package as it is, either major; records what it runs.

A POST to any path speaks Streamable HTTP without sessions and is answered in JSON. Each tools/call
that the package hands to its handler is recorded with the number in the request's `x-case` header,
whatever its tool and arguments, with the request target and the headers that a server may take for
the gate's. GET /executed returns the records since the last time, as a JSON array; arguments are
JSON text inside it.

Invariant: it never judges a body itself, neither before nor instead of the package.
Usage: python_server.py; prints `listening address=127.0.0.1:PORT` once it listens.
"""

import asyncio
import importlib.metadata
import json
import logging
import socket
import warnings
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

# Longer than any pause of a test, so that no request meets a connection that is just being closed.
KEEP_ALIVE_SECONDS = 600

executed: list[dict[str, Any]] = []


def note(request: Request | None, tool: str, arguments: Any) -> None:
    """Records that the call in this HTTP request reached its handler."""
    case = None if request is None else request.headers.get("x-case")
    if case is None:
        return
    try:
        text = json.dumps(arguments or {})
    except (RecursionError, ValueError):
        text = "not to be written as JSON"
    # A name that is no Unicode text is noted as one that no gate would show.
    tool = tool.encode("utf-8", "backslashreplace").decode()
    path = request.scope.get("raw_path") or request.scope["path"].encode()
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    hitl = [header for header in headers if header[0].lower().replace("_", "-").startswith("x-hitl-")]
    executed.append(
        {
            "case": int(case),
            "tool": tool,
            "arguments": text,
            "path": path.decode("latin-1"),
            "hitl": hitl,
        }
    )


if importlib.metadata.version("mcp").startswith("1."):
    import mcp.types as types

    def build() -> Server:
        """The server of mcp 1.x; the arguments are not held against any schema."""
        server: Server = Server("differential")

        @server.list_tools()
        async def list_tools() -> list[types.Tool]:
            return []

        @server.call_tool(validate_input=False)
        async def call_tool(name: str, arguments: dict[str, Any]) -> list[types.TextContent]:
            note(server.request_context.request, name, arguments)
            return [types.TextContent(type="text", text="executed")]

        return server

else:
    import mcp_types as types

    async def list_tools(_context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[])

    async def call_tool(
        context: Any, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        note(context.request, params.name, params.arguments)
        return types.CallToolResult(content=[types.TextContent(type="text", text="executed")])

    def build() -> Server:
        """The server of mcp 2.x, which holds arguments against a schema only where asked to."""
        return Server("differential", on_list_tools=list_tools, on_call_tool=call_tool)


class App:
    """Two routes: the package's transport, and what was run."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self.manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match (scope.get("method"), scope.get("path")):
            case ("POST", _):
                await self.manager.handle_request(scope, receive, send)
            case ("GET", "/executed"):
                body = json.dumps(executed)
                executed.clear()
                await Response(body, media_type="application/json")(scope, receive, send)
            case _:
                await Response(status_code=404)(scope, receive, send)


class Announcing(uvicorn.Server):
    """Says where it listens, once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()
            print(f"listening address={host}:{port}", flush=True)


async def main() -> None:
    # Named as TCP: asyncio turns Nagle's delay off only for sockets that say so.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    manager = StreamableHTTPSessionManager(build(), json_response=True, stateless=True)
    config = uvicorn.Config(
        App(manager),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
    )
    async with manager.run():
        await Announcing(config).serve(sockets=[listener])


if __name__ == "__main__":
    # A hostile body is the normal case here, and the package logs each one at length.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    asyncio.run(main())
