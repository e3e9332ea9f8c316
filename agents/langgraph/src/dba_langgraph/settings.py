"""What the agent is told when it starts: flags, or environment variables.

Owns the settings and their validation. Must never let the agent begin with a setting that it would
trip over later.
"""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

SYSTEM = """\
You are a database assistant for a small orders database. You read tables with cluster_db_query, empty
them with truncate_table, and change the schema with run_migration (v1 to v4). Before a call, say in one
sentence which tool you are going to use and why.

Approval is not yours to ask for. The system asks the user before a table is emptied, and the platform
team before a migration runs; call the tool and let it. A migration may take minutes to be decided.

Never claim that something was done that a tool has not confirmed. When the answer of a tool says that a
call was denied, rejected, expired or is still pending, tell the user its reason word for word, and do not
repeat the call unless the user asks for it.
"""
"""What the model is told of its work, unless it is told otherwise."""

DESCRIPTION = (
    "Reads and changes the orders database. Asks before it empties a table; "
    "schema changes are decided by the platform team."
)

LEVELS = ("debug", "info", "warn", "error")

LONGEST = 86_400
"""Longest limit, in seconds."""


HIGHEST_PORT = 65_535


class SettingsError(ValueError):
    """A setting that nothing can be done with; says which, and what would do."""


def _setting(variable: str, default: Any, text: str) -> Any:
    return field(default=default, metadata={"variable": variable, "text": text})


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings, valid."""

    listen: str = _setting("DBA_ASSISTANT_LISTEN", "127.0.0.1:8080", "address to listen on")
    url: str = _setting(
        "DBA_ASSISTANT_URL", "", "where others reach this agent, as its card says; empty: --listen"
    )
    name: str = _setting("DBA_ASSISTANT_NAME", "dba-assistant", "the agent's name, as its card says")
    description: str = _setting("DBA_ASSISTANT_DESCRIPTION", DESCRIPTION, "what it does, as its card says")
    system: str = _setting("DBA_ASSISTANT_SYSTEM", SYSTEM, "what the model is told of its work")
    tools: tuple[str, ...] = _setting(
        "DBA_ASSISTANT_TOOLS",
        (),
        "tools that the model may call, with commas; empty: all there are; public/TOOL and "
        "privileged/TOOL are tools of one endpoint alone",
    )
    require_approval: tuple[str, ...] = _setting(
        "DBA_ASSISTANT_REQUIRE_APPROVAL",
        ("truncate_table",),
        "tools whose calls wait for the approval of the user who asked, with commas",
    )
    public_tools: str = _setting(
        "OPS_TOOLS_PUBLIC_URL",
        "http://127.0.0.1:8088/public/mcp",
        "MCP endpoint of the tools that nobody stands before",
    )
    privileged_tools: str = _setting(
        "OPS_TOOLS_PRIVILEGED_URL",
        "http://127.0.0.1:8088/privileged/mcp",
        "MCP endpoint of the tools whose calls a platform reviewer may hold",
    )
    call_limit: int = _setting(
        "DBA_ASSISTANT_CALL_LIMIT",
        900,
        "longest that one call may take, in seconds; more than the gate holds it",
    )
    run_limit: int = _setting(
        "DBA_ASSISTANT_RUN_LIMIT",
        0,
        "longest that the agent works without a word of its user, in seconds; 0: four calls",
    )
    model: str = _setting("DBA_ASSISTANT_MODEL", "claude-haiku-4-5", "the model")
    model_url: str = _setting("ANTHROPIC_BASE_URL", "https://api.anthropic.com", "base of the Messages API")
    api_key: str = _setting("ANTHROPIC_API_KEY", "", "key for it; any will do for a scripted model")
    kagent_url: str = _setting(
        "KAGENT_URL", "", "kagent's controller, to keep conversations in; empty: in memory"
    )
    kagent_name: str = _setting("KAGENT_NAME", "dba-assistant-langgraph", "its name at kagent")
    kagent_namespace: str = _setting("KAGENT_NAMESPACE", "kagent", "its namespace at kagent")
    kagent_token: str = _setting(
        "KAGENT_TOKEN_FILE",
        "/var/run/secrets/tokens/kagent-token",
        "file with its own token for kagent's controller, if there is one",
    )
    log_format: str = _setting("LOG_FORMAT", "human", "form of the log lines: human or json")
    log_level: str = _setting("LOG_LEVEL", "info", f"what is logged: {', '.join(LEVELS)}")

    @property
    def host(self) -> str:
        """Where it listens, without the port."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.listen.rpartition(":")[2])

    @property
    def longest_run(self) -> int:
        """Longest that it works without a word of its user, in seconds."""
        return self.run_limit or 4 * self.call_limit

    @property
    def app_name(self) -> str:
        """Its name, as kagent's controller has it."""
        return f"{self.kagent_namespace}__NS__{self.kagent_name}".replace("-", "_")


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Reads flags and variables; a flag counts more. Leaves with a message where they do not do."""
    environment = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(
        prog="dba-langgraph",
        allow_abbrev=False,
        description="A database assistant in LangGraph that asks its user before it destroys.",
        epilog="Every flag may be given as the environment variable that stands beside it.",
    )
    for option in fields(Settings):
        variable = option.metadata["variable"]
        shown = option.default if option.name not in ("system", "api_key") else ""
        shown = ",".join(shown) if isinstance(shown, tuple) else shown
        default = f" [default: {shown}]" if shown not in ("", 0) else ""
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            metavar="VALUE",
            default=environment.get(variable),
            help=f"{option.metadata['text']} [{variable}]{default}".replace("%", "%%"),
        )
    said = vars(parser.parse_args(arguments))
    # Nothing said is the default; of a list, nothing is a list of nothing.
    lists = [option.name for option in fields(Settings) if isinstance(option.default, tuple)]
    given = {name: value for name, value in said.items() if value or (value is not None and name in lists)}
    try:
        return _valid(given)
    except SettingsError as error:
        parser.error(str(error))


def _valid(given: Mapping[str, str]) -> Settings:
    values: dict[str, Any] = {}
    for option in fields(Settings):
        text = given.get(option.name)
        if text is None:
            continue
        if isinstance(option.default, int):
            values[option.name] = _seconds(option.name, text)
        elif isinstance(option.default, tuple):
            values[option.name] = tuple(part.strip() for part in text.split(",") if part.strip())
        else:
            values[option.name] = text
    # Other services take filters here (`info,tower=debug`): what is a level in one counts.
    words = [word.strip() for word in str(values.get("log_level", "info")).lower().split(",")]
    words = [{"warning": "warn", "trace": "debug", "off": "error"}.get(w, w) for w in words]
    values["log_level"] = next((word for word in words if word in LEVELS), "info")
    settings = Settings(**values)
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):[0-9]{1,5}", settings.listen):
        raise SettingsError(f"--listen {settings.listen!r} is not ADDRESS:PORT")
    if settings.port > HIGHEST_PORT:
        raise SettingsError(f"--listen {settings.listen!r}: there is no port above {HIGHEST_PORT}")
    for name in ("url", "public_tools", "privileged_tools", "model_url", "kagent_url"):
        value = getattr(settings, name)
        if value:
            _check_url(f"--{name.replace('_', '-')}", value)
    for name in ("kagent_name", "kagent_namespace"):
        value = getattr(settings, name)
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", value):
            raise SettingsError(f"--{name.replace('_', '-')} {value!r} is not a name of Kubernetes")
    if not re.fullmatch(r"[!-~]*", settings.api_key):
        raise SettingsError("--api-key has letters in it that no key has")
    if not 1 <= settings.call_limit <= LONGEST:
        raise SettingsError(f"--call-limit must be 1 to {LONGEST} seconds")
    if settings.run_limit > 4 * LONGEST:
        raise SettingsError(f"--run-limit must be at most {4 * LONGEST} seconds")
    if settings.run_limit and settings.run_limit <= settings.call_limit:
        raise SettingsError(
            f"--run-limit {settings.run_limit} ends a run before one call may end "
            f"(--call-limit {settings.call_limit}): make it longer"
        )
    # A misspelt name would mean that nobody is asked.
    tools = {tool.rpartition("/")[2] for tool in settings.tools}
    if tools and (unknown := set(settings.require_approval) - tools):
        raise SettingsError(f"--require-approval names {', '.join(sorted(unknown))}, which --tools does not")
    if settings.log_format not in ("human", "json"):
        raise SettingsError(f"--log-format {settings.log_format!r} is neither human nor json")


def _check_url(flag: str, value: str) -> None:
    # Not word for word: there may be a password in it.
    if "@" in value:
        raise SettingsError(
            f"{flag} has a user name or a password in it, which logs would show; leave it out"
        )
    if not _is_url(value):
        raise SettingsError(f"{flag} is not an http(s) URL; write http://HOST:PORT or https://HOST")


def _is_url(text: str) -> bool:
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _seconds(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise SettingsError(f"--{name.replace('_', '-')} {text!r} is not a number of seconds")
    return int(text)
