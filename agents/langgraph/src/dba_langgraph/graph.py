"""The order of things, as a graph: the model, the question to the user, the calls.

::

    model ──> ask ──> begin ──> run ──> model ...
                        ^────────┘

All calls of a round that need approval are one question, asked before anything of that round runs. What
is answered is kept after each step, so that taking a conversation up again repeats nothing. Must never
run a call that is not noted as begun, nor one that needs approval and has none.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AnyMessage, SystemMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import interrupt

from dba_langgraph import approval, history
from dba_langgraph.tools import AwayError, Servers

MOST_ROUNDS = 20
"""Most rounds of calls in one turn; a model that wants more is going in circles."""

MOST_STEPS = 100_000
"""The library's own limit, out of the way: rounds are what is counted."""


class NoToolsError(Exception):
    """Nothing can be called."""


class TooManyRoundsError(Exception):
    """The model goes in circles."""


class State(TypedDict):
    """What is kept of a conversation."""

    messages: Annotated[list[AnyMessage], add_messages]
    task: str
    """The task that works on it, or did last."""
    approved: list[str]
    """Calls that the user has approved and that have not been made."""
    begun: list[str]
    """Calls that were begun and of which no answer has come."""
    failed: list[str]
    """Calls of this turn that came back with an error, as they were made."""
    rounds: int
    again: str | None
    """Why the user is asked again, if so."""


Model = Callable[[list[dict[str, Any]]], Runnable[LanguageModelInput, AIMessage]]
"""The model, bound to tools."""

Graph = CompiledStateGraph[State, None, State, State]


def user_of(config: RunnableConfig) -> str:
    """For whom a graph runs."""
    return str(config["configurable"]["user_id"])


def begin_turn(task: str, text: str) -> dict[str, Any]:
    """What a graph is given when its user says something."""
    turn = {"task": task, "approved": [], "failed": [], "rounds": 0, "again": None}
    return {"messages": [("user", text)], **turn}


class Nodes:
    """What is done in each step."""

    def __init__(self, model: Model, servers: Servers, system: str, needs_approval: Sequence[str]) -> None:
        """Calls of the tools in ``needs_approval`` are asked about."""
        self._model, self._servers, self._system = model, servers, system
        self._needs_approval = frozenset(needs_approval)
        self._offered: list[dict[str, Any]] = []

    async def model(self, state: State, config: RunnableConfig) -> dict[str, Any]:
        """Asks the model what comes next."""
        rounds = state.get("rounds", 0)
        if rounds >= MOST_ROUNDS:
            raise TooManyRoundsError(
                f"The model asked for more than {MOST_ROUNDS} rounds of calls, and was stopped."
            )
        offered, away = await self._servers.offered(user_of(config))
        if rounds and not offered:
            # The gateway went away in the middle of a turn: the model hears what came of its call.
            offered = self._offered
        if not offered:
            raise NoToolsError(
                f"No tools can be reached: {', '.join(away)}. Try again when the gateway is up."
            )
        self._offered = offered
        heard = history.well_formed(state["messages"], state.get("begun", []))
        try:
            said = await self._model(offered).ainvoke([SystemMessage(self._system), *heard], config)
        except Exception as error:
            raise history.ModelError(
                f"The model could not be asked: {str(error) or 'it cannot be reached'}"
            ) from error
        said = history.spoken(said, state["messages"])
        # What came back with an error is for the user to repeat, not for the model.
        repeated = [call for call in said.tool_calls if history.same(call) in state["failed"]]
        answers = [history.answer(call, history.REPEATED, failed=True) for call in repeated]
        return {"messages": [said, *answers], "rounds": rounds + 1, "approved": []}

    def ask(self, state: State) -> dict[str, Any]:
        """Asks the user about every call that needs it. Runs from its beginning when they decide."""
        asked = self._unapproved(state)
        decision = interrupt(approval.action_requests(asked, state.get("again")))
        decision = decision if isinstance(decision, dict) else {}
        verdicts = {call["id"] or "": approval.verdict(decision, call["id"] or "") for call in asked}
        rejected = [call for call in asked if not verdicts[call["id"] or ""].approved]
        return {
            "messages": [
                history.answer(call, verdicts[call["id"] or ""].told(), failed=True) for call in rejected
            ],
            "approved": [
                *state.get("approved", []),
                *(call_id for call_id, verdict in verdicts.items() if verdict.approved),
            ],
            "again": None,
        }

    def begin(self, state: State) -> dict[str, Any]:
        """Notes which call is made next, before it is made."""
        call = history.open_calls(state["messages"])[0]
        return {"begun": [*state.get("begun", []), call["id"]]}

    async def run(self, state: State, config: RunnableConfig) -> dict[str, Any]:
        """Makes the call that was noted."""
        call = history.open_calls(state["messages"])[0]
        call_id, name = call["id"] or "", call["name"]
        if name in self._needs_approval and call_id not in state["approved"]:
            # The edges do not lead here then; nothing runs even if they did.
            raise PermissionError(f"{name} needs an approval that is not there")
        tell = get_stream_writer()
        begun = [one for one in state["begun"] if one != call_id]
        try:
            answer = await self._servers.call(
                user_of(config), name, call["args"], lambda sentence: tell({"said": sentence})
            )
        except AwayError as error:
            if name in self._needs_approval:
                # The approval was for a call, and there was none: what is open is asked again.
                again = (
                    f"It cannot be reached: {error}. This call was not made; decide again once it is back."
                )
                return {"begun": begun, "approved": [], "again": again}
            # For the model to try again when its user wants to: this is no answer of the tool.
            text = f"It cannot be reached: {error}. The call was not made."
            return {"messages": [history.answer(call, text, failed=True)], "begun": begun}
        failed = [history.same(call)] if answer.failed else []
        return {
            "messages": [history.answer(call, answer.text, failed=answer.failed)],
            "begun": begun,
            "failed": [*state["failed"], *failed],
        }

    def next(self, state: State) -> str:
        """Which step comes next."""
        last = state["messages"][-1]
        if isinstance(last, AIMessage) and not last.tool_calls:
            return END
        if not history.open_calls(state["messages"]):
            return "model"
        return "ask" if self._unapproved(state) else "begin"

    def _unapproved(self, state: State) -> list[Any]:
        return [
            call
            for call in history.open_calls(state["messages"])
            if call["name"] in self._needs_approval and call["id"] not in state.get("approved", [])
        ]


def build(nodes: Nodes, checkpointer: BaseCheckpointSaver[Any]) -> Graph:
    """The graph; what it comes to is kept by ``checkpointer``."""
    graph = StateGraph(State)
    graph.add_node("model", nodes.model)
    graph.add_node("ask", nodes.ask)
    graph.add_node("begin", nodes.begin)
    graph.add_node("run", nodes.run)
    graph.add_edge(START, "model")
    graph.add_edge("begin", "run")
    for step in ("model", "ask", "run"):
        graph.add_conditional_edges(step, nodes.next, ["model", "ask", "begin", END])
    return graph.compile(checkpointer=checkpointer)
