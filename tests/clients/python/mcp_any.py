"""Both majors of the official `mcp` package behind one small face.

2.x speaks 2026-07-28 and 2025-11-25, 1.x speaks 2025-11-25; both are in use.
"""

import contextlib
import importlib.metadata

VERSION = importlib.metadata.version("mcp")

if VERSION.startswith("1."):
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    MODES = ["legacy"]

    @contextlib.asynccontextmanager
    async def connect(url, _mode):
        """A session at `url`, and the protocol version it speaks."""
        async with streamablehttp_client(url) as (read, write, _):
            async with ClientSession(read, write) as session:
                initialized = await session.initialize()
                yield session, initialized.protocolVersion

    def parts(result):
        """Of a tool result: whether it is an error, its structured content, its first text."""
        return result.isError, result.structuredContent, result.content[0].text

else:
    from mcp import Client

    MODES = ["auto", "legacy"]

    @contextlib.asynccontextmanager
    async def connect(url, mode):
        """A session at `url`, and the protocol version it speaks."""
        async with Client(url, mode=mode) as client:
            yield client, client.protocol_version

    def parts(result):
        """Of a tool result: whether it is an error, its structured content, its first text."""
        return result.is_error, result.structured_content, result.content[0].text
