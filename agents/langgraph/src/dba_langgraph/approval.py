"""The question to the user, and their decision, in the form that kagent's dashboard knows.

Pure. Must never take for an approval what does not say so: a call that a decision does not name is
rejected, and so is one that it names in words of its own.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from a2a.types import DataPart, Message, Part
from langchain_core.messages import ToolCall

UNIFORM = ""
"""What a reason for everything is kept under; no call has such an id."""

APPROVE, REJECT, BATCH = "approve", "reject", "batch"


class UnknownDecisionError(ValueError):
    """A decision that says neither yes nor no."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a decision says of one call."""

    approved: bool
    reason: str | None = None

    def told(self) -> str:
        """What the model is told of a call that was rejected."""
        text = "Tool call was rejected by user."
        return f"{text} Reason: {self.reason}" if self.reason else text


def resume_value(message: Message) -> dict[str, Any] | None:
    """The decision in a message, as a paused graph takes it; none where there is only text."""
    for part in message.parts:
        if isinstance(part.root, DataPart) and "decision_type" in part.root.data:
            data = part.root.data
            kind = data["decision_type"]
            if kind not in (APPROVE, REJECT, BATCH):
                raise UnknownDecisionError(
                    f"decision_type {kind!r} is none of approve, reject and batch; nothing was decided"
                )
            value: dict[str, Any] = {"decision_type": kind}
            if kind == BATCH:
                value["decisions"] = _texts(data.get("decisions"))
            reasons = _texts(data.get("rejection_reasons"))
            if isinstance(uniform := data.get("rejection_reason"), str):
                reasons[UNIFORM] = uniform
            value["rejection_reasons"] = reasons
            return value
    return None


def _texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        return {}
    return {key: text for key, text in value.items() if isinstance(key, str) and isinstance(text, str)}


def verdict(value: Mapping[str, Any], call_id: str) -> Verdict:
    """What a decision says of a call. Reasons may stand for one call, or for all of them (``*``)."""
    kind = value.get("decision_type")
    if kind == BATCH:
        approved = _texts(value.get("decisions")).get(call_id) == APPROVE
    else:
        approved = kind == APPROVE
    if approved:
        return Verdict(approved=True)
    reasons = _texts(value.get("rejection_reasons"))
    given = (reasons.get(name, "") for name in (call_id, "*", UNIFORM))
    return Verdict(approved=False, reason=next((reason for reason in given if reason.strip()), None))


def action_requests(calls: Sequence[ToolCall], again: str | None = None) -> dict[str, Any]:
    """What a graph interrupts itself with; kagent's own executor reads it too."""
    requests = [{"name": call["name"], "args": call["args"], "id": call["id"]} for call in calls]
    return {"action_requests": requests, "again": again}


def _marked(kind: str, *, long_running: bool = False) -> dict[str, Any]:
    return {"kagent_type": kind} | ({"kagent_is_long_running": True} if long_running else {})


def call_part(call: Mapping[str, Any]) -> Part:
    """The part that shows a call."""
    data = {"id": call["id"], "name": call["name"], "args": call["args"]}
    return Part(root=DataPart(data=data, metadata=_marked("function_call")))


def response_part(call_id: str, name: str | None, text: str) -> Part:
    """The part that shows what a call came to."""
    data = {"id": call_id, "name": name, "response": text}
    return Part(root=DataPart(data=data, metadata=_marked("function_response")))


def question_part(request: Mapping[str, Any]) -> Part:
    """The part that asks for approval of a call."""
    data = {
        "name": "adk_request_confirmation",
        "id": f"adk-{uuid.uuid4()}",
        "args": {
            "originalFunctionCall": {key: request[key] for key in ("id", "name", "args")},
            "toolConfirmation": {
                "hint": f"Tool '{request['name']}' requires approval before execution.",
                "confirmed": False,
                "payload": None,
            },
        },
    }
    return Part(root=DataPart(data=data, metadata=_marked("function_call", long_running=True)))
