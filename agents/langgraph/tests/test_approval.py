"""What counts as an approval, and what does not."""

from typing import Any

import pytest
from a2a.types import Message

from dba_langgraph import approval


def message(data: object) -> Message:
    parts = [{"kind": "data", "data": data, "metadata": {}}, {"kind": "text", "text": "Approved"}]
    return Message.model_validate({"messageId": "m", "role": "user", "parts": parts})


def verdicts(data: object) -> list[approval.Verdict]:
    value = approval.resume_value(message(data))
    assert value is not None
    return [approval.verdict(value, call) for call in ("x", "y")]


YES, NO = approval.Verdict(approved=True), approval.Verdict(approved=False)


def rejected(reason: str) -> approval.Verdict:
    return approval.Verdict(approved=False, reason=reason)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"decision_type": "approve"}, [YES, YES]),
        ({"decision_type": "reject"}, [NO, NO]),
        ({"decision_type": "reject", "rejection_reason": "no way"}, [rejected("no way")] * 2),
        ({"decision_type": "reject", "rejection_reasons": {"*": "later"}}, [rejected("later")] * 2),
        (
            {"decision_type": "reject", "rejection_reasons": {"x": " "}, "rejection_reason": "no"},
            [rejected("no")] * 2,
        ),
        (
            {
                "decision_type": "batch",
                "decisions": {"x": "approve", "y": "reject"},
                "rejection_reasons": {"y": "month end freeze"},
            },
            [YES, rejected("month end freeze")],
        ),
    ],
)
def test_every_form_that_the_dashboard_sends_is_understood(
    data: dict[str, Any], expected: list[approval.Verdict]
) -> None:
    assert verdicts(data) == expected


@pytest.mark.parametrize(
    "decisions",
    [
        {},
        {"z": "approve"},
        {"x": True, "y": "APPROVE"},
        {"x": "approved", "y": ["approve"]},
        "approve",
        None,
        ["x", "y"],
    ],
)
def test_what_does_not_say_approve_is_no_approval(decisions: object) -> None:
    assert verdicts({"decision_type": "batch", "decisions": decisions}) == [NO, NO]


@pytest.mark.parametrize("kind", ["Approve", "yes", True, None, ["approve"], {}])
def test_a_kind_that_nobody_knows_decides_nothing(kind: object) -> None:
    with pytest.raises(approval.UnknownDecisionError):
        approval.resume_value(message({"decision_type": kind}))


def test_text_is_no_decision() -> None:
    assert approval.resume_value(message({"type": "approve"})) is None


def test_a_blank_reason_is_none() -> None:
    assert verdicts({"decision_type": "reject", "rejection_reason": "  "}) == [NO, NO]
    assert NO.told() == "Tool call was rejected by user."
    assert rejected("x").told() == "Tool call was rejected by user. Reason: x"


def test_a_question_has_the_shape_that_the_dashboard_looks_for() -> None:
    call = {"id": "toolu_1", "name": "truncate_table", "args": {"table": "orders"}}
    part = approval.question_part(call).model_dump(mode="json")
    assert part["metadata"] == {"kagent_type": "function_call", "kagent_is_long_running": True}
    assert part["data"]["name"] == "adk_request_confirmation"
    assert part["data"]["args"]["originalFunctionCall"] == call
