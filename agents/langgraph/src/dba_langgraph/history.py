"""A conversation as the model's API wants it, whatever has happened in it.

Pure. Must never say of a call that it did not happen when it may have.
"""

import json
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage

UNKNOWN = (
    "This call was begun, and what became of it is not known. It may have happened, or may still "
    "happen: look before you repeat it."
)
NOT_MADE = "This call was not made: the conversation went on without it."
REPEATED = (
    "This very call has been answered in this turn already, and was not made again. Tell the user "
    "what the answer was; they decide what happens next."
)


class ModelError(Exception):
    """The model said what nobody can act on."""


def answer(call: ToolCall, text: str, *, failed: bool) -> ToolMessage:
    """The answer to a call."""
    return ToolMessage(
        content=text,
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="error" if failed else "success",
    )


def open_calls(messages: Sequence[AnyMessage]) -> list[ToolCall]:
    """The calls of the last round that have no answer yet, in the model's order."""
    answered: set[str] = set()
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            answered.add(message.tool_call_id)
        elif isinstance(message, AIMessage):
            return [call for call in message.tool_calls if call["id"] not in answered]
        else:
            return []
    return []


def well_formed(messages: Sequence[AnyMessage], begun: Sequence[str]) -> list[AnyMessage]:
    """The same conversation with an answer to every call, where the API looks for it.

    A turn may have ended anyhow: cancelled, killed, or left for another. Calls named in ``begun``
    may have happened.
    """
    answers = {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage)}
    formed: list[AnyMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            continue
        of_user = formed and isinstance(formed[-1], HumanMessage | ToolMessage)
        if isinstance(message, HumanMessage) and of_user:
            # The API wants the two sides to alternate.
            formed.append(AIMessage(content="(No answer was given.)"))
        formed.append(message)
        if isinstance(message, AIMessage):
            for call in message.tool_calls:
                known = answers.get(call["id"] or "")
                text = UNKNOWN if call["id"] in begun else NOT_MADE
                formed.append(known or answer(call, text, failed=True))
    return formed


def spoken(said: AIMessage, messages: Sequence[AnyMessage]) -> AIMessage:
    """What the model said, as it may be kept and acted on.

    Raises ModelError for what nobody can act on. The API takes no empty text back.
    """
    known = {call["id"] for m in messages if isinstance(m, AIMessage) for call in m.tool_calls}
    for call in said.tool_calls:
        # An answer belongs to its call by the id alone.
        if not call["id"] or call["id"] in known:
            raise ModelError(f"The model's call of {call['name']} has no id of its own.")
        known.add(call["id"])
    if said.invalid_tool_calls:
        name = said.invalid_tool_calls[0].get("name") or "a tool"
        raise ModelError(f"The model's arguments for {name} cannot be read.")
    if said.tool_calls and said.response_metadata.get("stop_reason") == "max_tokens":
        raise ModelError("The model's answer ends in the middle of a call.")
    if isinstance(said.content, str):
        content: str | list[str | dict[Any, Any]] = said.content if said.content.strip() else ""
    else:
        content = [block for block in said.content if not _blank(block)]
    tidy = said.model_copy(update={"content": content})
    if not text_of(tidy).strip() and not said.tool_calls:
        return said.model_copy(update={"content": "(No answer was given.)"})
    if not is_text(json.dumps([content, said.tool_calls], ensure_ascii=False, default=str)):
        raise ModelError("The model's answer has letters in it that are none.")
    return tidy


def is_text(text: str) -> bool:
    """Whether a text can be written down: halves of letters cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _blank(block: str | dict[Any, Any]) -> bool:
    text = block if isinstance(block, str) else block.get("text", "") if block.get("type") == "text" else "."
    return not str(text).strip()


def text_of(message: AnyMessage) -> str:
    """What a message says in words; models give it whole or in blocks."""
    if isinstance(message.content, str):
        return message.content
    blocks = [block for block in message.content if isinstance(block, dict)]
    texts = [str(block.get("text", "")) for block in blocks if block.get("type") == "text"]
    return "\n\n".join(text for text in texts if text)


def same(call: ToolCall) -> str:
    """What makes two calls the same."""
    return json.dumps([call["name"], call["args"]], sort_keys=True)
