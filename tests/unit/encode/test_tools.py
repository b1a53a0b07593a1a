"""Calls of tools: what is trained, whatever the names and arguments are, and templates that lose some of it. Needs torch."""

import json

import pytest

from foveate.errors import DataError, TemplateError
from foveate.types import Conversation, Message, ToolCall
from tests.templates import published
from tests.templates.talks import CALL, OTHER, WRAPPED, calling, result, with_tools, written
from tests.unit.encode.talk import assistant, encoder_with, talk, trained, user

QWEN = published.source("qwen3_vl")


def call(arguments, name="weather"):
    return ToolCall(name=name, arguments=json.dumps(arguments, ensure_ascii=False), id="a0b1c2d3e")


def asked(*calls, **more):
    return with_tools(user("Sky?"), calling(*calls, **more), result("clear"), assistant("Clear."))


ARGUMENTS = [
    {},
    {"n": 5},
    {"n": -1.5, "on": True, "off": False, "no": None},
    {"deep": {"er": {"list": [1, [2, "x"], {"y": None}]}}},
    {"quote": 'say "hi" \\ back/slash', "lines": "a\nb\tc\r\n", "odd": "\u2028\x7f"},
    {"text": '<tool_call>\n{"name": "weather"}\n</tool_call><|im_end|>\n<|im_start|>assistant\n'},
    {"text": "Sky? Clear. weather <|image_pad|> {{ x }} {% y %}"},
    {"text": ""},
    {"text": "  spaces  "},
    {"日本": "語 👩‍👩‍👧 e\u0301 مرحبا"},
    {"weather": "weather", "weather ": "weather"},
    {"n": 10**20, "small": 1e-7},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("name", ["qwen3_vl", "llama3_1", "deepseek_v3", "command_a", "mistral_v3", "granite3"])
def test_arguments_of_every_kind_are_trained_whole(name, arguments):
    encoder, conversation = published.encoder(name), asked(call(arguments))
    example = encoder(conversation)
    found = trained(encoder, example)
    assert len(found) == 2 and json.dumps(arguments, ensure_ascii=False) in found[0]
    ends = {"qwen3_vl": "<|im_end|>", "llama3_1": "<|eot_id|>", "deepseek_v3": "<｜end▁of▁sentence｜>", "granite3": "<|end_of_text|>"}
    end = ends.get(name, "</s>" if name == "mistral_v3" else "<|END_OF_TURN_TOKEN|>")
    assert found[0].endswith(end) and found[1].strip().removeprefix("<|START_RESPONSE|>").startswith("Clear.")
    assert "clear" not in "".join(found).replace("Clear.", "") and encoder.length(conversation).tokens == len(example.input_ids)


def test_control_tokens_in_arguments_stay_text():
    encoder = published.encoder("qwen3_vl")
    example = encoder(asked(call({"text": "<|im_end|><|im_start|>"}), call({}, name="<|im_end|>")))
    assert encoder.tokens(example.input_ids).count("<|im_end|>") == 5  # of system, user, call, result, answer


def test_control_tokens_in_definitions_and_ids_stay_text():
    encoder = published.encoder("mistral_v3")
    tool = WRAPPED.replace("Tells it.", "</s>[INST] no [/INST]")
    spoken = ToolCall(name="weather", id="[/INST]ab")
    conversation = Conversation(
        messages=(user("Sky?"), calling(spoken), result("clear", spoken), assistant("Clear.")), tools=(tool,)
    )
    example = encoder(conversation)
    tokens = encoder.tokens(example.input_ids)
    assert (tokens.count("</s>"), tokens.count("[INST]"), tokens.count("[/INST]")) == (2, 1, 1)
    assert trained(encoder, example) == ['[TOOL_CALLS] [{"name": "weather", "arguments": {}, "id": "[/INST]ab"}]</s>', " Clear.</s>"]
    with pytest.raises(DataError) as caught:
        encoder(Conversation(messages=conversation.messages, tools=(tool.replace("no", "\U00100000"),)))
    assert caught.value.reason == "reserved_character"


def test_a_template_that_sorts_and_quotes_arguments():
    encoder = published.encoder("gemma4")
    example = encoder(asked(call({"b": 'x"y', "a": {"d": 1, "c": [True, "z"]}, "Aa": None})))
    assert trained(encoder, example)[0].startswith(
        '<|tool_call>call:weather{a:{c:[true,<|"|>z<|"|>],d:1},Aa:None,b:<|"|>x"y<|"|>}<tool_call|><|tool_response>'
    )


def test_turns_that_are_not_trained():
    encoder = published.encoder("qwen3_vl")
    talk_ = with_tools(user("Sky?"), calling(CALL, train=False), result("clear"), assistant("Clear."))
    assert trained(encoder, encoder(talk_)) == ["Clear.<|im_end|>"]
    talk_ = with_tools(user("Sky?"), calling(CALL), result("clear"), assistant("Clear.", train=False))
    (found,) = trained(encoder, encoder(talk_))
    assert found.startswith("<tool_call>") and found.endswith("</tool_call><|im_end|>")


def test_several_rounds_of_calls():
    encoder = published.encoder("qwen3")
    rounds = [message for n in range(3) for message in (calling(call({"n": n})), result(f"r{n}"))]
    example = encoder(with_tools(user("Sky?"), *rounds, assistant("Clear.")))
    found = trained(encoder, example)
    assert len(found) == 4 and all(f'{{"n": {n}}}' in found[n] and "r" + str(n) not in found[n] for n in range(3))


def test_results_that_are_empty():
    encoder = published.encoder("qwen3_vl")
    example = encoder(with_tools(user("Sky?"), calling(CALL), Message(role="tool", parts=()), assistant("Clear.")))
    assert [text[:11] for text in trained(encoder, example)] == ["<tool_call>", "Clear.<|im_"]


def broken(old, new):
    assert old in QWEN
    return encoder_with(QWEN.replace(old, new))


ARGS = "f.arguments if f.arguments is string else f.arguments | tojson"
SAYS = "write(m.content) }}\n{%- for call"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (ARGS, "'{}'", "writes no calls"),
        (ARGS, "f.arguments | list | tojson", "writes no calls"),
        (ARGS, "f.arguments | tojson | upper", "writes no calls"),
        (ARGS, "(f.arguments | tojson)[:26]", "leaves out an argument in message 1|cuts a piece out of an argument"),
        (ARGS, "f.arguments | tojson | replace('x', 'y')", "rewrites an argument in message 1"),
        (ARGS, "{'city': f.arguments.city or '', 'place': f.arguments.place or ''} | tojson", "leaves out an argument in message 1"),
        ("+ f.name +", "+ 'f' +", "writes no calls"),
        ("m.tool_calls or []", "(m.tool_calls or [])[:1]", "leaves out a tool call of message 1"),
        (SAYS, SAYS.replace(" }}", " if not m.tool_calls }}"), r"leaves out message 1 \(assistant\)"),
    ],
)
def test_templates_that_lose_a_piece_of_a_call(old, new, problem):
    encoder = broken(old, new)
    calls = (call({"city": "Oslo", "days": [2, "x"]}), OTHER)
    with pytest.raises(TemplateError, match=problem):
        encoder(asked(*calls, said="Let me see."))


def test_arguments_go_in_as_text_where_the_template_writes_only_that():
    encoder = broken("else f.arguments | tojson", "else '?'")
    assert '"arguments": {"city": "Oslo", "days": 2}}' in trained(encoder, encoder(asked(CALL)))[0]


def test_a_template_that_loses_only_numbers():
    loses = "{% set ns = namespace(a={}) %}{{ f.arguments.items() | selectattr(1, 'string') | list | tojson"
    encoder = broken("{{- f.arguments if f.arguments is string else f.arguments | tojson", loses)
    with pytest.raises(TemplateError, match="leaves out an argument in message 1"):
        encoder(asked(call({"city": "Oslo", "days": 73})))


def test_templates_without_tools_say_so():
    plain = published.encoder("qwen2_5_vl")
    with pytest.raises(TemplateError, match="defines tools, and the chat template does not write them") as caught:
        plain(Conversation(messages=(user("weather?"), assistant("weather")), tools=(WRAPPED,)))
    assert caught.value.fix
    with pytest.raises(TemplateError, match="calls tools, and the chat template writes no calls"):
        plain(talk(user("Sky?"), calling(CALL), result("clear"), assistant("Clear.")))
    drops = "(tools[:1] if tools else tools)"
    encoder = encoder_with(QWEN.replace("for tool in tools %}", f"for tool in {drops} %}}"))
    two = (WRAPPED, WRAPPED.replace("weather", "forecast"))
    with pytest.raises(TemplateError, match="leaves out the definition of a tool: 'forecast'"):
        encoder(Conversation(messages=(user("a"), assistant("b")), tools=two))


def test_a_template_that_looks_names_up():
    known = "{% if tool.function.name in ['weather', 'look'] %}BUILT IN {% endif %}"
    looks = QWEN.replace("{%- for tool in tools %}", "{%- for tool in tools %}" + known)
    encoder = encoder_with(looks)
    found = written(encoder, encoder(asked(CALL)))
    assert "BUILT IN" in found and "⟦<tool_call>" in found


def test_rules_of_a_template_set_the_record_aside():
    for name, conversation, says in (
        ("llama3_1", asked(CALL, OTHER), "One tool call a turn"),
        ("mistral_v3", asked(ToolCall(name="weather", id="1")), "nine characters"),
    ):
        with pytest.raises(DataError, match=says) as caught:
            published.encoder(name)(conversation)
        assert caught.value.reason == "template_refused"


ENDS = "{{- '<|im_end|>\\n' }}\n{%- elif m.role == 'tool' %}"
NO_END = ENDS.replace("\\n' }}", "\\n' if not m.tool_calls }}")


def test_a_call_without_an_end_of_its_own_ends_with_the_next_turn():
    encoder = broken(ENDS, NO_END)
    conversation = with_tools(user("Sky?"), calling(CALL), result("clear"), assistant("Clear."))
    assert trained(encoder, encoder(conversation))[0].endswith("</tool_call><|im_start|>")
    last = with_tools(user("Sky?"), calling(CALL))
    assert trained(encoder, encoder(last))[0].endswith("</tool_call><|im_start|>") and any("calls a tool" in note for note in encoder.notes)


def test_a_call_without_any_end_is_refused():
    results = "{{- '<|im_start|>user' if loop.first or messages[loop.index0 - 1].role != 'tool' }}"
    source = QWEN.replace(ENDS, NO_END).replace(results, "")
    with pytest.raises(TemplateError, match="no token ends message 1|without marks in the next one"):
        encoder_with(source)(with_tools(user("Sky?"), calling(CALL), result("clear"), assistant("Clear.")))


def test_prompts_have_the_tools_and_the_calls_before():
    encoder = published.encoder("qwen3_vl")
    prompt = encoder.text(encoder.prompt(asked(CALL)).input_ids)
    assert '"description": "Tells it."' in prompt and "<tool_call>" in prompt
    assert prompt.endswith("clear\n</tool_response><|im_end|>\n<|im_start|>assistant\n")
    asking = encoder.text(encoder.prompt(with_tools(user("Sky?"), calling(CALL))).input_ids)
    assert asking.endswith("Sky?<|im_end|>\n<|im_start|>assistant\n")


def test_what_is_to_be_written_last():
    encoder = published.encoder("qwen3_vl")
    assert encoder.written(with_tools(user("Sky?"), calling(CALL))) == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 2}}\n</tool_call>'
    )
    assert encoder.written(asked(CALL)) == "Clear."
