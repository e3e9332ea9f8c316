"""The sentences that the agent says of itself, and failures in plain words.

Owns the wording. Invariant: names of a library's types reach the log alone.
"""

from datetime import UTC, datetime

import httpx
from mcp.shared.exceptions import McpError

MAY_HAVE_RUN = "It may have run: check before you ask for it again."
LOST = "the connection was lost"


def aside(text: str) -> str:
    """A sentence that more may follow: kagent's page strings together all that is said until the answer."""
    return text.rstrip() + "\n\n"


def held(tool: str, since: datetime) -> str:
    """Says that the gate holds a call."""
    return f"{tool} has been waiting for the platform team since {since.astimezone(UTC):%H:%M} UTC."


def repeating(tool: str) -> str:
    """Says that a call is made once more, because the connection ended before an answer began."""
    return (
        f"The connection to the gateway was lost before {tool} was answered. The gate keeps the request; "
        f"{tool} is called once more."
    )


def lost_twice(tool: str) -> str:
    """What is answered for a reviewed call whose connection was lost twice."""
    return (
        f"The connection to the gateway was lost twice before {tool} was answered. The gate keeps a request "
        f"that waits for the platform team: ask for {tool} again to go on waiting. One approval runs it once "
        "at most."
    )


def lost_and_away(tool: str, why: str) -> str:
    """What is answered for a reviewed call whose connection was lost, with a gateway that is away since."""
    return (
        f"The connection to the gateway was lost before {tool} was answered, and {why}. The gate keeps a "
        f"request that waits for the platform team: ask for {tool} again when the gateway is back. One "
        "approval runs it once at most."
    )


def unanswered(tool: str) -> str:
    """The answer to an unreviewed call whose connection was lost."""
    return f"The connection was lost before {tool} was answered. {MAY_HAVE_RUN}"


def broken_off(tool: str) -> str:
    """What is answered for a call whose answer broke off."""
    return f"The connection was lost in the middle of the answer of {tool}. {MAY_HAVE_RUN}"


def first(error: BaseException) -> BaseException:
    """The first cause of an error; task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def plain(error: BaseException) -> str:
    """Why something that was asked for could not be had."""
    error = first(error)
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return "it does not answer in time"
    if isinstance(error, httpx.ConnectError):
        return "it cannot be reached"
    if isinstance(error, httpx.TransportError):
        return LOST
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answers HTTP {error.response.status_code}"
    if isinstance(error, McpError):
        # The server's own words.
        return str(error) or "it answers with an error that says nothing"
    return "its answer cannot be understood; the agent's log says more"
