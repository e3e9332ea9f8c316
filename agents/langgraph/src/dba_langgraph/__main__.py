"""Starts the agent."""

import json
import logging
import os
import sys

from dba_langgraph import settings


class JsonFormatter(logging.Formatter):
    """A log line as the other services of the lab write it."""

    def format(self, record: logging.LogRecord) -> str:
        """One object."""
        line = {
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
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
    # kagent's library reads it as Python has it, the moment it is loaded.
    os.environ["LOG_LEVEL"] = given.log_level.upper()
    import uvicorn  # noqa: PLC0415

    from dba_langgraph.app import make  # noqa: PLC0415

    log_as(given.log_format, given.log_level)
    app = make(given)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=given.host,
            port=given.port,
            log_config=None,
            access_log=False,
            # Streams of held calls are ended; what they wait for is settled right after.
            timeout_graceful_shutdown=2,
        )
    )
    server.run()


if __name__ == "__main__":
    main()
