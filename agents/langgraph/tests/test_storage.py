"""What is kept in memory, and whose it is."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from a2a.types import Task, TaskState, TaskStatus
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from dba_langgraph.settings import Settings
from dba_langgraph.storage import Controller, Memory, StorageError, open_storage


def task(task_id: str) -> Task:
    return Task(id=task_id, context_id="c", status=TaskStatus(state=TaskState.working))


def test_nobody_finds_or_overwrites_what_is_anothers() -> None:
    async def play() -> None:
        memory = Memory()
        await memory.save("alice", task("t"))
        assert await memory.task("bob", "t") is None
        assert await memory.of_context("bob", "c") == []
        with pytest.raises(StorageError):
            await memory.save("bob", task("t"))
        found = await memory.task("alice", "t")
        assert found is not None
        # What is found is a copy: changing it changes nothing that is kept.
        found.status.state = TaskState.completed
        again = await memory.task("alice", "t")
        assert again is not None
        assert again.status.state is TaskState.working

    asyncio.run(play())


def test_two_users_who_call_their_conversations_the_same_have_two() -> None:
    memory = Memory()
    names = [("a", "1:b:c"), ("a:1", "b:c"), ("a:1:b", "c")]
    assert len({memory.thread(user, context) for user, context in names}) == len(names)


def test_a_pause_outlives_what_is_forgotten_before_it() -> None:
    def ask(_: MessagesState) -> dict[str, Any]:
        return {"messages": [("assistant", interrupt("may I?"))]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", END)
    memory = Memory()
    run = graph.compile(checkpointer=memory.checkpointer)
    config: Any = {"configurable": {"thread_id": "t"}}

    async def play() -> None:
        for turn in range(5):
            paused = await run.ainvoke({"messages": [("user", str(turn))]}, config)
            assert paused["__interrupt__"][0].value == "may I?"
            state = await run.ainvoke(Command(resume="yes"), config)
            assert len(state["messages"]) == 2 * (turn + 1)
        kept: Any = memory.checkpointer
        assert len(kept.storage["t"][""]) == 1
        assert len(kept.blobs) <= len(state) + 4

    asyncio.run(play())


@pytest.mark.parametrize("name", ["../sessions/x", "t?user_id=bob", "..", "a/b", "", "x" * 129])
def test_a_name_that_is_another_address_is_not_looked_for(name: str) -> None:
    storage = open_storage(Settings(kagent_url="http://127.0.0.1:1"))
    with pytest.raises(StorageError, match="cannot be looked for"):
        asyncio.run(storage.task("alice", name))


def test_a_conversation_is_named_only_where_kagent_does_not_know_it() -> None:
    known: dict[str, Any] = {}
    named: list[dict[str, Any]] = []

    def controller(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            named.append(json.loads(request.content))
            return httpx.Response(201, json={"data": {}})
        context = request.url.path.split("/")[3]
        # A conversation in which nothing was said comes without data, or with none.
        return httpx.Response(200, json=known[context]) if context in known else httpx.Response(404, json={})

    async def play() -> None:
        storage = Controller(Settings(kagent_url="http://kagent"), httpx.MockTransport(controller))
        known.update({"new": {"error": False}, "null": {"error": False, "data": None}})
        assert await storage.of_context("alice", "new") == []
        assert await storage.of_context("alice", "null") == []
        assert await storage.of_context("alice", "unknown") is None
        await storage.begin_context("alice", "unknown", " what is in the orders table? ")
        name = "what is in the order..."
        assert named == [{"id": "unknown", "agent_ref": "kagent__NS__dba_assistant_langgraph", "name": name}]

    asyncio.run(play())
