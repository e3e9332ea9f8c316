"""What the agent is told, and what it refuses to be told."""

from pathlib import Path

import pytest
import yaml

from dba_langgraph import app, settings

DESCRIBED = Path(__file__).parents[3] / "charts/dba-assistant/assistant.yaml"


def test_what_is_built_in_is_what_the_chart_describes() -> None:
    described = yaml.safe_load(DESCRIBED.read_text())
    built_in = settings.read([], {})
    assert built_in.name == described["name"]
    assert built_in.description == described["description"]
    assert built_in.system == described["systemMessage"]
    asked = [tool["name"] for tool in described["tools"] if tool.get("requireApproval")]
    assert list(built_in.require_approval) == asked
    skill = app.card(built_in).skills[0].model_dump(exclude_none=True)
    assert skill == described["skill"]


def test_a_flag_counts_more_than_a_variable_and_an_empty_one_is_the_default() -> None:
    environment = {"DBA_ASSISTANT_MODEL": "a", "DBA_ASSISTANT_NAME": ""}
    assert settings.read(["--model", "b"], environment).model == "b"
    assert settings.read([], environment).model == "a"
    assert settings.read([], environment).name == "dba-assistant"
    assert settings.read([], {"DBA_ASSISTANT_REQUIRE_APPROVAL": ""}).require_approval == ()


def test_a_run_may_take_longer_than_a_call() -> None:
    given = settings.read([], {"DBA_ASSISTANT_CALL_LIMIT": "300"})
    assert given.longest_run > given.call_limit


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--listen", "8080"], "ADDRESS:PORT"),
        (["--public-tools", "gateway/mcp"], "http"),
        (["--call-limit", "0"], "1 to"),
        (["--call-limit", "soon"], "number of seconds"),
        (["--call-limit", "300", "--run-limit", "300"], "ends a run before one call"),
        (["--tools", "cluster_db_query"], "truncate_table"),
        (["--tools", "public/truncate_tables"], "truncate_table"),
        (["--log-format", "xml"], "neither human nor json"),
    ],
)
def test_what_nothing_can_be_done_with_is_refused_with_a_word(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        settings.read(flags, {})
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("sign", ["", "@", "/", "#", "?", " ", "%"])
@pytest.mark.parametrize(
    "flag", ["--url", "--public-tools", "--privileged-tools", "--model-url", "--kagent-url"]
)
def test_a_password_in_a_url_is_refused_and_not_shown(
    flag: str, sign: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for url in (
        f"http://me:Zq7x{sign}W9kV@h/mcp",
        f"me:Zq7x{sign}W9kV@h/mcp",
        f"ftp://h/?key=Zq7x{sign}W9kV",
    ):
        with pytest.raises(SystemExit):
            settings.read([flag, url], {})
        said = capsys.readouterr().err
        assert flag in said
        assert "Zq7x" not in said
        assert "W9kV" not in said


@pytest.mark.parametrize(
    ("given", "meant"),
    [("info,tower=debug", "info"), ("tower=debug,warn", "warn"), ("trace", "debug"), ("x=y", "info")],
)
def test_filters_of_the_other_services_are_read_as_a_level(given: str, meant: str) -> None:
    assert settings.read([], {"LOG_LEVEL": given}).log_level == meant
