"""The order of things, with a model and tools that do as they are told."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from dba_langgraph import graph, history
from dba_langgraph.tools import Answer, AwayError, Servers


class Tools:
    """Tools that note what is called, and may be away."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.away = False
        self.away_after: int | None = None

    async def offered(self, _: str) -> tuple[list[dict[str, Any]], list[str]]:
        return [{"name": "truncate_table", "description": "", "input_schema": {}}], []

    async def call(self, user: str, tool: str, arguments: Mapping[str, Any], _: Callable[[], None]) -> Answer:
        if self.away or (self.away_after is not None and len(self.made) >= self.away_after):
            raise AwayError("gateway (nobody there)")
        self.made.append(f"{user}: {tool} {arguments.get('table', '')}".strip())
        return Answer("no", failed=True) if tool == "fails" else Answer("done", failed=False)


def call(call_id: str, name: str = "truncate_table", **args: str) -> ToolCall:
    return ToolCall(name=name, args=args, id=call_id)


class World:
    """A graph with a script for the model."""

    def __init__(self, *said: AIMessage) -> None:
        self.tools = Tools()
        script = iter(said)
        model: RunnableLambda[Any, AIMessage] = RunnableLambda(
            lambda _: next(script, AIMessage("That was all."))
        )
        nodes = graph.Nodes(lambda _: model, cast(Servers, self.tools), "You are.", ["truncate_table"])
        self.graph = graph.build(nodes, InMemorySaver())

    def run(self, given: Any) -> dict[str, Any]:
        config: Any = {"configurable": {"thread_id": "t", "user_id": "alice"}}
        return asyncio.run(self.graph.ainvoke(given, config))

    def say(self, text: str) -> dict[str, Any]:
        return self.run(graph.begin_turn("task", text))

    def decide(self, **value: Any) -> dict[str, Any]:
        return self.run(Command(resume=value))


def asked(state: dict[str, Any]) -> list[str]:
    return [request["id"] for request in state["__interrupt__"][0].value["action_requests"]]


def answers(state: dict[str, Any]) -> list[str]:
    return [history.text_of(message) for message in state["messages"] if isinstance(message, ToolMessage)]


def test_all_calls_that_need_approval_are_one_question_before_anything_runs() -> None:
    calls = [call("q", "query"), call("x", table="orders"), call("y", table="customers")]
    world = World(AIMessage("I will.", tool_calls=calls))
    assert asked(world.say("do it")) == ["x", "y"]
    assert world.tools.made == []
    state = world.decide(decision_type="batch", decisions={"x": "approve"})
    assert world.tools.made == ["alice: query", "alice: truncate_table orders"]
    assert answers(state) == ["Tool call was rejected by user.", "done", "done"]


def test_an_approval_whose_call_could_not_be_made_is_asked_for_again() -> None:
    world = World(AIMessage("", tool_calls=[call("q", "query"), call("x", table="orders")]))
    world.say("do it")
    world.tools.away = True
    state = world.decide(decision_type="approve")
    # The query is answered with why it was not made; the truncate is asked about again.
    assert asked(state) == ["x"]
    assert "decide again" in state["__interrupt__"][0].value["again"]
    world.tools.away = False
    world.decide(decision_type="approve")
    assert world.tools.made == ["alice: truncate_table orders"]


def test_what_ran_before_the_tools_went_away_does_not_run_again() -> None:
    world = World(AIMessage("", tool_calls=[call("q", "query"), call("x", table="orders")]))
    world.say("do it")
    world.tools.away_after = 1
    assert asked(world.decide(decision_type="approve")) == ["x"]
    assert world.tools.made == ["alice: query"]
    world.tools.away_after = None
    world.decide(decision_type="approve")
    assert world.tools.made == ["alice: query", "alice: truncate_table orders"]


def test_what_came_back_with_an_error_is_not_called_again_in_the_same_turn() -> None:
    world = World(
        AIMessage("", tool_calls=[call("a", "fails")]), AIMessage("", tool_calls=[call("b", "fails")])
    )
    state = world.say("try")
    assert world.tools.made == ["alice: fails"]
    assert answers(state) == ["no", history.REPEATED]
    assert history.text_of(state["messages"][-1]) == "That was all."


def test_a_model_that_goes_in_circles_is_stopped() -> None:
    circles = (AIMessage("", tool_calls=[call(str(n), "query")]) for n in range(graph.MOST_ROUNDS + 5))
    world = World(*circles)
    with pytest.raises(graph.TooManyRoundsError):
        world.say("loop")
    assert len(world.tools.made) == graph.MOST_ROUNDS


@pytest.mark.parametrize(
    "said",
    [
        AIMessage("", tool_calls=[call("x"), call("x")]),
        AIMessage("", tool_calls=[ToolCall(name="truncate_table", args={}, id="")]),
        AIMessage("", tool_calls=[call("x")], response_metadata={"stop_reason": "max_tokens"}),
    ],
)
def test_what_nobody_can_act_on_is_not_acted_on(said: AIMessage) -> None:
    world = World(said)
    with pytest.raises(history.ModelError):
        world.say("do it")
    assert world.tools.made == []


def test_what_is_not_a_decision_approves_nothing() -> None:
    world = World(AIMessage("", tool_calls=[call("x", table="orders")]))
    world.say("do it")
    state = world.run(Command(resume="yes"))
    assert world.tools.made == []
    assert answers(state) == ["Tool call was rejected by user."]


def test_what_ran_in_an_earlier_round_is_neither_asked_about_nor_run_again() -> None:
    world = World(
        AIMessage("", tool_calls=[call("m", "run_migration")]),
        AIMessage("", tool_calls=[call("x", table="orders")]),
    )
    assert asked(world.say("migrate, then empty it")) == ["x"]
    world.decide(decision_type="approve")
    assert world.tools.made == ["alice: run_migration", "alice: truncate_table orders"]
