"""Starts the agent."""

import json
import logging
import os
import sys
from datetime import UTC, datetime

from dba_langgraph import settings


class JsonFormatter(logging.Formatter):
    """A log line as the other services of the lab write it."""

    def format(self, record: logging.LogRecord) -> str:
        """One object."""
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname,
            "message": record.getMessage(),
            "target": record.name,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as(form: str, level: str) -> None:
    """Logs to the standard error output, in this form."""
    handler = logging.StreamHandler(sys.stderr)
    human = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if form == "json" else human)
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # A line for every request of every other library is no news.
    for library in ("httpx", "httpx2", "mcp", "a2a"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))


def main() -> None:
    """Reads the settings and serves until it is told to stop."""
    given = settings.read()
    # kagent's library sets up logging of its own the moment it is loaded, and says so in a form of its own.
    os.environ["LOG_LEVEL"] = "ERROR"
    import uvicorn  # noqa: PLC0415

    from dba_langgraph.app import GracefulServer, make  # noqa: PLC0415

    log_as(given.log_format, given.log_level)
    if not given.require_approval:
        logging.warning("no call waits for the approval of its user: --require-approval is empty")
    app, agent = make(given)
    config = uvicorn.Config(
        app,
        host=given.host,
        port=given.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    GracefulServer(config, agent).run()


if __name__ == "__main__":
    main()
