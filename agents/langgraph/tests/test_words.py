"""What is said between a call and its answer, and why something failed."""

from datetime import datetime

import httpx
import pytest
from mcp.shared.exceptions import McpError
from mcp.types import ErrorData

from dba_langgraph import words

TOOL = "run_migration"


def test_a_held_call_is_told_with_a_readable_time() -> None:
    since = datetime.fromisoformat("2026-11-30T14:44:28.496+01:00")
    assert words.held(TOOL, since) == f"{TOOL} has been waiting for the platform team since 13:44 UTC."


def test_two_sentences_never_run_together() -> None:
    assert words.aside("I'll look.") == words.aside("I'll look.\n") == "I'll look.\n\n"


REQUEST = httpx.Request("POST", "http://gateway/mcp")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (httpx.ConnectError("[Errno 111]"), "it cannot be reached"),
        (httpx.ReadTimeout(""), "it does not answer in time"),
        (TimeoutError(), "it does not answer in time"),
        (httpx.ReadError(""), words.LOST),
        (httpx.RemoteProtocolError("Server disconnected"), words.LOST),
        (McpError(ErrorData(code=1, message="no such tool")), "no such tool"),
        (
            httpx.HTTPStatusError("", request=REQUEST, response=httpx.Response(503, request=REQUEST)),
            "it answers HTTP 503",
        ),
        (KeyError("tools"), "its answer cannot be understood; the agent's log says more"),
    ],
)
def test_a_failure_is_told_without_the_name_of_a_type(error: Exception, told: str) -> None:
    assert words.plain(error) == told
    assert words.plain(ExceptionGroup("unhandled errors in a TaskGroup", [error])) == told
