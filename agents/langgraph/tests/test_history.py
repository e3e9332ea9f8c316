"""Conversations as the model's API wants them, whatever has happened in them."""

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

from dba_langgraph import history


def call(call_id: str, table: str = "orders") -> ToolCall:
    return ToolCall(name="truncate_table", args={"table": table}, id=call_id)


def said(*calls: ToolCall) -> AIMessage:
    return AIMessage(content="I will.", tool_calls=list(calls))


def kinds(messages: list[AnyMessage]) -> list[str]:
    return [message.type for message in messages]


def test_every_call_has_an_answer_right_after_it() -> None:
    conversation: list[AnyMessage] = [
        HumanMessage("empty both"),
        said(call("x"), call("y")),
        history.answer(call("y"), "done", failed=False),
        HumanMessage("and now?"),
    ]
    formed = history.well_formed(conversation, begun=["x"])
    assert kinds(formed) == ["human", "ai", "tool", "tool", "ai", "human"]
    answers = [message for message in formed if isinstance(message, ToolMessage)]
    assert [answer.tool_call_id for answer in answers] == ["x", "y"]
    assert [answer.text for answer in answers] == [history.UNKNOWN, "done"]


def test_what_was_never_begun_is_said_to_have_not_happened() -> None:
    formed = history.well_formed([HumanMessage("empty it"), said(call("x"))], begun=[])
    assert history.text_of(formed[-1]) == history.NOT_MADE


def test_two_sentences_of_a_user_in_a_row_have_something_between() -> None:
    formed = history.well_formed([HumanMessage("a"), HumanMessage("b")], begun=[])
    assert kinds(formed) == ["human", "ai", "human"]


def test_a_conversation_in_which_nothing_is_missing_stays_as_it_is() -> None:
    conversation: list[AnyMessage] = [
        HumanMessage("empty it"),
        said(call("x")),
        history.answer(call("x"), "done", failed=False),
        AIMessage("It is empty."),
    ]
    assert history.well_formed(conversation, begun=[]) == conversation


def test_open_calls_are_those_of_the_last_round_without_an_answer() -> None:
    first, answer = said(call("x"), call("y")), history.answer(call("x"), "done", failed=False)
    assert [one["id"] for one in history.open_calls([first, answer])] == ["y"]
    assert history.open_calls([first, answer, HumanMessage("wait")]) == []
    assert history.open_calls([]) == []


def test_the_same_call_is_the_same_in_whatever_order_its_arguments_stand() -> None:
    one = ToolCall(name="t", args={"a": 1, "b": {"c": 2, "d": 3}}, id="1")
    two = ToolCall(name="t", args={"b": {"d": 3, "c": 2}, "a": 1}, id="2")
    assert history.same(one) == history.same(two)
    assert history.same(one) != history.same(call("x"))


def test_what_is_said_in_blocks_is_read_as_text() -> None:
    blocks = AIMessage(content=[{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}])
    assert history.text_of(blocks) == "a"
