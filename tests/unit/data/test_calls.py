"""Tools, their calls and results, reasoning and weights, as the layouts in use write them. No torch."""

import json

import pytest

from foveate.data.adapters.function import FunctionAdapter
from foveate.data.adapters.turns import trained_as
from foveate.data.mixture import check_conversation
from foveate.errors import DataError
from foveate.types import Message, Text, ToolCall
from tests.unit.data.test_adapters import adapt, user

TOOL = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
WRAPPED = {"type": "function", "function": TOOL}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Paris", "days": 2}}}
ASK = {"role": "user", "content": "Weather?"}
DONE = {"role": "assistant", "content": "Sunny."}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sunny"}


def calling(**turn):
    return {"messages": [ASK, {"role": "assistant", "content": None, **turn}, RESULT, DONE]}


def test_openais_calls_and_results(tmp_path):
    _, conversation = adapt(tmp_path, calling(tool_calls=[CALL]) | {"tools": [WRAPPED]})
    _, called, result, done = check_conversation(conversation).messages
    assert called.tool_calls == (ToolCall(name="weather", arguments='{"city": "Paris", "days": 2}', id="c1"),)
    assert called.parts == () and called.trained and called.says
    assert (result.role, result.tool_call_id, result.name, result.text) == ("tool", "c1", "weather", "sunny")
    assert done.text == "Sunny." and [json.loads(tool) for tool in conversation.tools] == [WRAPPED]


@pytest.mark.parametrize(
    ("turn", "arguments"),
    [
        ({"tool_calls": [{"function": {"name": "weather", "arguments": '{"n": 12.50}'}}]}, '{"n": 12.50}'),  # text stays as written
        ({"tool_calls": [{"name": "weather", "arguments": {}}]}, "{}"),
        ({"tool_calls": {"name": "weather"}}, "{}"),
        ({"function_call": {"name": "weather", "arguments": ""}}, "{}"),
        ({"tool_calls": [CALL | {"function": {"name": "weather", "arguments": {"a": None, "b": [1, None]}}}]}, '{"b": [1]}'),
    ],
)
def test_spellings_of_a_call(tmp_path, turn, arguments):
    (call,) = adapt(tmp_path, calling(**turn))[1].messages[1].tool_calls
    assert (call.name, call.arguments) == ("weather", arguments)


def test_openais_older_results(tmp_path):
    called = {"role": "assistant", "function_call": {"name": "f"}}
    row = {"messages": [ASK, called, {"role": "function", "name": "f", "content": "4"}, DONE]}
    assert [message.role for message in adapt(tmp_path, row)[1].messages] == ["user", "assistant", "tool", "assistant"]


@pytest.mark.parametrize(
    ("turn", "reason", "says"),
    [
        ({"tool_calls": [{"id": "1"}]}, "bad_tool_call", "has no name"),
        ({"tool_calls": ["weather"]}, "bad_tool_call", "is a str"),
        ({"tool_calls": "weather()"}, "bad_tool_call", "no JSON"),
        ({"tool_calls": [CALL | {"typ": "x"}]}, "bad_tool_call", "did you mean 'type'"),
        ({"tool_calls": [CALL | {"type": "code"}]}, "bad_tool_call", "of type 'code'"),
        ({"tool_calls": [{"name": "f", "arguments": "[1]"}]}, "bad_tool_call", "no object"),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": 1, "a": 2}'}]}, "bad_tool_call", "twice"),
        ({"tool_calls": [{"name": "f", "arguments": '{"a": NaN}'}]}, "bad_tool_call", "NaN"),
        ({"tool_calls": [CALL], "function_call": {"name": "f"}}, "bad_tool_call", "keep one"),
        ({"tool_call_id": "1"}, "unknown_field", "tool_call_id in a turn of the assistant"),
        ({"reasoning": 3}, "wrong_type", "reasoning is a int"),
        ({"reasoning": "a", "thinking": "b"}, "wrong_type", "differ"),
    ],
)
def test_calls_that_can_not_be(tmp_path, turn, reason, says):
    with pytest.raises(DataError, match=says) as caught:
        adapt(tmp_path, calling(**turn))
    assert caught.value.reason == reason and caught.value.fix and "message 1" in caught.value.problem


def test_calls_in_a_turn_of_the_user(tmp_path):
    with pytest.raises(DataError, match="tool calls in a turn of the user"):
        adapt(tmp_path, {"messages": [ASK | {"tool_calls": [CALL]}, DONE]})


ROWS = [
    {"messages": user("?")},
    {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "x"}]},
    {"query": "?", "response": "x"},
]


@pytest.mark.parametrize("row", ROWS)
def test_definitions_of_tools_in_every_format_of_turns(tmp_path, row):
    for empty in (None, "", "[]", []):
        assert adapt(tmp_path, row | {"tools": empty})[1].tools == ()
    for tools in ([TOOL], [WRAPPED], json.dumps([TOOL]), [json.dumps(WRAPPED)], WRAPPED):
        assert [json.loads(tool) for tool in adapt(tmp_path, row | {"tools": tools})[1].tools] == [WRAPPED]
    for tools in ("weather", [3], [{"description": "no name"}], 7):
        with pytest.raises(DataError) as caught:
            adapt(tmp_path, row | {"tools": tools})
        assert caught.value.reason == "bad_tool" and caught.value.fix


def test_a_column_of_tools_by_another_name(tmp_path):
    _, conversation = adapt(tmp_path, {"messages": user("?"), "functions": [TOOL]}, columns={"tools": "functions"})
    assert json.loads(conversation.tools[0]) == WRAPPED


def test_llama_factorys_function_turns(tmp_path):
    said = [{"from": "human", "value": "?"}, {"from": "function_call", "value": '[{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]'}]
    row = {"conversations": [*said, {"from": "observation", "value": "4"}, {"from": "gpt", "value": "Four."}], "system": "S", "tools": "[]"}
    _, called, result, _ = adapt(tmp_path, row)[1].messages[1:]
    assert called.tool_calls == (ToolCall(name="f", arguments='{"a": 1}'), ToolCall(name="g")) and called.says
    assert (result.role, result.text) == ("tool", "4")
    with pytest.raises(DataError, match=r"turn 1: the tool call is text, and no JSON") as caught:
        adapt(tmp_path, {"conversations": [said[0], {"from": "function_call", "value": "f(1)"}]})
    assert caught.value.reason == "bad_tool_call"


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning(tmp_path, key):
    message = adapt(tmp_path, {"messages": [ASK, DONE | {key: "Because."}]})[1].messages[1]
    assert (message.reasoning, message.text) == ("Because.", "Sunny.")
    with pytest.raises(DataError, match="reasoning in a turn of the user"):
        adapt(tmp_path, {"messages": [ASK | {key: "Because."}, DONE]})


def test_an_answer_of_reasoning_alone_is_empty(tmp_path):
    with pytest.raises(DataError) as caught:
        check_conversation(adapt(tmp_path, {"messages": [ASK, {"role": "assistant", "content": "", "reasoning": "hm"}]})[1])
    assert caught.value.reason == "empty_answer"


@pytest.mark.parametrize(
    ("turn", "weight", "trained"),
    [
        ({}, 1, True),
        ({"weight": 0.25}, 0.25, True),
        ({"weight": 3}, 3, True),
        ({"loss_scale": 0.5, "weight": 0.5}, 0.25, True),
        ({"weight": 0}, 1, False),
        ({"weight": 2, "train": False}, 2, False),
    ],
)
def test_weights(tmp_path, turn, weight, trained):
    message = adapt(tmp_path, {"messages": [ASK, DONE | turn, ASK, DONE]})[1].messages[1]
    assert (message.weight, message.trained) == (weight, trained)
    for wrong in (-1, "1", True, float("inf")):
        with pytest.raises(DataError) as caught:
            adapt(tmp_path, {"messages": [ASK, DONE | {"weight": wrong}]})
        assert caught.value.reason in ("wrong_type", "bad_json")


@pytest.mark.parametrize(
    "turn", [{"weight": 1e-50}, {"weight": 10**400}, {"loss_scale": 1e39}, {"weight": 1e5, "loss_scale": 1e5}, {"weight": 10**5000}]
)
def test_weights_that_float32_can_not_add_up(turn):
    with pytest.raises(DataError) as caught:
        trained_as(Message(role="assistant", parts=(Text(text="Sunny."),)), turn)
    assert caught.value.reason == "wrong_type" and "1e+06" in caught.value.fix


def test_half_a_character_in_a_call(tmp_path):
    _, conversation = adapt(tmp_path, calling(tool_calls=[{"name": "f", "arguments": {"a": "\ud83d"}}]))
    with pytest.raises(DataError) as caught:
        check_conversation(conversation)
    assert caught.value.reason == "bad_text"


def test_several_assistant_turns_in_a_row_are_the_templates_to_judge(tmp_path):
    assert check_conversation(adapt(tmp_path, {"messages": [ASK, DONE, DONE]})[1]).messages[2].text == "Sunny."


def test_a_users_function_may_return_tools(tmp_path):
    adapter = FunctionAdapter(function=lambda row: {"messages": [ASK, DONE], "tools": [row["tool"]]}, name="f", root=tmp_path)
    conversation = adapter({"tool": TOOL})
    assert json.loads(conversation.tools[0]) == WRAPPED and conversation.messages[0].parts == (Text(text="Weather?"),)
