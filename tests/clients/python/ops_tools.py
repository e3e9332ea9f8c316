"""The official Python MCP client against a running mcp-ops-tools: lists and calls every tool.

Usage: ops_tools.py http://127.0.0.1:8080
"""

import asyncio
import json
import sys

from mcp_any import MODES, VERSION, connect, parts


async def call(client, tool, **arguments):
    """A call that must succeed; its text is the same as its structured content."""
    is_error, structured, text = parts(await client.call_tool(tool, arguments))
    assert not is_error, text
    assert json.loads(text) == structured, (text, structured)
    return structured


async def refused(client, tool, **arguments):
    """A call that must be refused in band; gives the sentence."""
    is_error, _, text = parts(await client.call_tool(tool, arguments))
    assert is_error, text
    return text


async def converse(base, mode):
    async with connect(base + "/public/mcp", mode) as (public, version):
        async with connect(base + "/privileged/mcp", mode) as (privileged, _):
            tools = {tool.name: tool for tool in (await public.list_tools()).tools}
            assert sorted(tools) == ["cluster_db_query", "truncate_table"], tools
            assert [t.name for t in (await privileged.list_tools()).tools] == ["run_migration"]

            # Whatever an earlier conversation left, this one starts at v2.
            await call(privileged, "run_migration", version="v2")
            moved = await call(privileged, "run_migration", version="v3")
            assert moved == {"migrated": True, "from": "v2", "to": "v3"}, moved
            columns = (await call(public, "cluster_db_query", sql="SELECT * FROM orders"))["columns"]
            assert "currency" in columns, columns
            back = await call(privileged, "run_migration", version="v2")
            assert back == {"migrated": True, "from": "v3", "to": "v2"}, back
            emptied = await call(public, "truncate_table", table="orders")
            assert emptied["truncated"] == "orders", emptied
            count = await call(public, "cluster_db_query", sql="SELECT count(*) AS n FROM orders")
            assert count["rows"] == [{"n": 0}], count

            assert "read-only" in await refused(public, "cluster_db_query", sql="DELETE FROM orders")
            assert "orders and customers" in await refused(public, "truncate_table", table="x")
            assert "v1, v2, v3, v4" in await refused(privileged, "run_migration", version="v9")
    return version


async def main():
    for mode in MODES:
        version = await converse(sys.argv[1], mode)
        print(f"mcp {VERSION}, mode {mode}: spoke {version}, all good")


asyncio.run(main())
