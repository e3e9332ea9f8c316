"""Anthropic's own Python SDK at the scripted model: whole and streamed, a call and its result.

Usage: messages.py http://MODEL
"""

import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1], api_key="any", max_retries=0)
TOOLS = [
    {
        "name": name,
        "description": name,
        "input_schema": {"type": "object", "properties": {argument: {"type": "string"}}},
    }
    for name, argument in [
        ("cluster_db_query", "sql"),
        ("truncate_table", "table"),
        ("run_migration", "version"),
    ]
]
ASKED = {"role": "user", "content": "truncate orders and customers, then apply migration v3"}


def ask(messages):
    return dict(model="claude-haiku-4-5", max_tokens=1024, tools=TOOLS, messages=messages)


def calls(message):
    return [(block.name, block.input) for block in message.content if block.type == "tool_use"]


whole = client.messages.create(**ask([ASKED]))
assert whole.stop_reason == "tool_use" and whole.usage.input_tokens > 0, whole
assert calls(whole) == [
    ("truncate_table", {"table": "orders"}),
    ("truncate_table", {"table": "customers"}),
    ("run_migration", {"version": "v3"}),
], whole

with client.messages.stream(**ask([ASKED])) as stream:
    text = "".join(stream.text_stream)
    streamed = stream.get_final_message()
assert text == whole.content[0].text, text
assert calls(streamed) == calls(whole) and streamed.stop_reason == "tool_use", streamed

results = [
    {
        "type": "tool_result",
        "tool_use_id": block.id,
        "content": [{"type": "text", "text": f"reason of {block.name}: month end"}],
        "is_error": block.name == "run_migration",
    }
    for block in streamed.content
    if block.type == "tool_use"
]
history = [ASKED, {"role": "assistant", "content": streamed.content}, {"role": "user", "content": results}]
answer = client.messages.create(**ask(history))
assert answer.stop_reason == "end_turn", answer
for result in results:
    assert result["content"][0]["text"] in answer.content[0].text, answer
assert "run_migration did not succeed: " in answer.content[0].text, answer

assert client.messages.count_tokens(model="claude-haiku-4-5", messages=[ASKED]).input_tokens > 0
try:
    client.messages.create(model="claude-haiku-4-5", max_tokens=0, messages=[ASKED])
    raise SystemExit("an error was expected")
except anthropic.BadRequestError as error:
    assert "max_tokens" in error.message and error.request_id.startswith("req_"), error
