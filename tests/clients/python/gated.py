"""The official Python MCP client, as an agent, through a real gateway and the real gate.

All four things that can happen to a call: it passes, it is approved, it is denied with the
reviewer's reason word for word, it is told to come back and its retry passes.
Usage: gated.py http://GATEWAY http://GATE_ADMIN REVIEWER_TOKEN
"""

import asyncio
import json
import sys
import urllib.request

from mcp_any import MODES, VERSION, connect, parts

GATEWAY, ADMIN, TOKEN = sys.argv[1:4]
PATIENCE = 30


def ask(path, body=None):
    """The gate's admin API, as a reviewer."""
    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(ADMIN + path, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        text = response.read()
    return json.loads(text) if text else None


async def pending(waiting):
    """The one pending request, once its caller waits, or once nobody does."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await asyncio.to_thread(ask, "/pending"))["pending"]
            if len(found) == 1 and found[0]["waiting"] == waiting:
                return found[0]
            await asyncio.sleep(0.02)


async def decide(request, approved, reason):
    body = {"approved": approved, "reason": reason}
    await asyncio.to_thread(ask, f"/decide/{request['id']}", body)


async def migrate(client, version):
    return parts(await client.call_tool("run_migration", {"version": version}))


async def scenes(mode):
    async with connect(GATEWAY + "/public/mcp", mode) as (public, _):
        async with connect(GATEWAY + "/privileged/mcp", mode) as (privileged, version):
            # Passes: the handshake above, and listing; nobody was asked.
            assert [t.name for t in (await privileged.list_tools()).tools] == ["run_migration"]
            is_error, rows, _ = parts(
                await public.call_tool("cluster_db_query", {"sql": "SELECT count(*) AS n FROM orders"})
            )
            assert not is_error and rows["rows"] == [{"n": 3}], rows
            assert ask("/pending")["pending"] == []

            # Approved: held until then, and run with a receipt, which the tool insists on.
            call = asyncio.create_task(migrate(privileged, "v3"))
            request = await pending(waiting=True)
            assert request["toolArgs"] == {"version": "v3"}, request
            await decide(request, True, "go ahead")
            is_error, moved, text = await call
            assert not is_error, text
            assert moved == {"migrated": True, "from": "v2", "to": "v3"}, moved

            # Denied: the reason arrives word for word, and the session lives on.
            reason = 'not on a Friday: "prod" is frozen \u2014 ask again on Monday'
            call = asyncio.create_task(migrate(privileged, "v4"))
            await decide(await pending(waiting=True), False, reason)
            is_error, why, text = await call
            assert is_error and reason in text, text
            assert why["disposition"] == "denied" and why["reason"] == reason, why

            # Told to come back: the hold ends, the request stays, the retry joins it and passes.
            is_error, why, text = await migrate(privileged, "v2")
            assert is_error and why["disposition"] == "pending", text
            first = await pending(waiting=False)
            call = asyncio.create_task(migrate(privileged, "v2"))
            again = await pending(waiting=True)
            assert again["id"] == first["id"], (first, again)
            await decide(again, True, "")
            is_error, moved, text = await call
            assert not is_error and moved["to"] == "v2", text
    return version


async def main():
    for mode in MODES:
        version = await scenes(mode)
        print(f"mcp {VERSION}, mode {mode}: spoke {version}, all four outcomes")


asyncio.run(main())
