"""Templates and records made to get somebody else's words labelled, or a call's lost, without anybody noticing. Needs torch."""

import datetime
import json

import pytest

from foveate.encode.encoder import Encoder
from foveate.errors import DataError, TemplateError
from foveate.types import Conversation, Message, ToolCall
from tests import families
from tests.templates import published
from tests.unit.encode.talk import assistant, encoder_with, talk, trained, user

CONTENT = (
    "{% if m.content is string %}{{m.content}}{% else %}{% for c in m.content %}{% if c.type=='image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{c.text}}{% endif %}{% endfor %}{% endif %}"
)
HEAD = "{% for m in messages %}{{'<|im_start|>'+m.role+'\n'}}"
END = "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n'}}{% endif %}"
DEFINED = "{% if tools %}{{tools|tojson}}{% endif %}"
THOUGHT = "{% if m.reasoning_content %}<think>{{m.reasoning_content}}</think>{% endif %}"
KEEP = (
    "{% if m.role=='user' %}{% set ns.u=m.content if m.content is string else "
    "(m.content|selectattr('type','equalto','text')|map(attribute='text')|join('')) %}{% endif %}"
)
NAMESPACE = "{% set ns=namespace(u='') %}"
CALLS = (
    "{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{c.function.name}}{% for k,v in c.function.arguments.items() %} {{k}}="
    "{% if v is string %}{{v}}{% else %}REST{% endif %}{% endfor %}</tool_call>{% endfor %}{% endif %}"
)
TOOL = json.dumps({"type": "function", "function": {"name": "f", "description": "desc", "parameters": {"type": "object"}}})


def thinking(text, thought):
    return Message(role="assistant", parts=assistant(text).parts, reasoning=thought)


def calling(arguments, number="call_5"):
    spoken = ToolCall(name="f", arguments=json.dumps(arguments), id=number)
    asks = Message(role="assistant", parts=(), tool_calls=(spoken,))
    gets = Message(role="tool", parts=user("res").parts, tool_call_id=number, name="f")
    return Conversation(messages=(user("q"), asks, gets, assistant("done")), tools=(TOOL,))


@pytest.mark.parametrize("when", ["m.reasoning_content", "m.reasoning_content and loop.last"])
@pytest.mark.parametrize("first", [True, False])
def test_a_question_that_is_written_again_in_an_answer(when, first):
    echo = "{% if m.role=='assistant' and WHEN %}[you asked: {{ns.u}}]{% endif %}".replace("WHEN", when)
    encoder = encoder_with(NAMESPACE + HEAD + KEEP + ((echo + THOUGHT + CONTENT) if first else (THOUGHT + CONTENT + echo)) + END)
    with pytest.raises(TemplateError, match=r"message 0 \(user\)"):
        encoder(talk(user("my secret question"), thinking("ans", "hm")))
    plain = talk(user("my secret question"), assistant("ans"))
    assert trained(encoder, encoder(plain)) == ["ans<|im_end|>"]


NAMED = "{% if t.function.name in ['look','f'] %}{{WHAT|tojson}}{% else %}{{'?'+t.function.name}}{% endif %}"


@pytest.mark.parametrize(
    "written",
    [
        NAMED.replace("WHAT", "t"),
        NAMED.replace("WHAT", "t.function.parameters"),
        "{{t.function.name}}",
        "{{t.function.description}}",
        "{{t|tojson}}",
        "{{t.function.parameters|tojson}}",
        "{{t.function.parameters.properties|length}}",
    ],
)
@pytest.mark.parametrize("message", [assistant("ans"), thinking("ans", "hm")])
def test_definitions_of_tools_in_an_answer(written, message):
    shown = "{% if m.role=='assistant' and loop.last and tools %}{% for t in tools %}" + written + "{% endfor %}{% endif %}"
    defined = DEFINED if "function.name" not in written else ""
    encoder = encoder_with(defined + HEAD + THOUGHT + CONTENT + shown + END)
    with pytest.raises(TemplateError, match="labels can't be proven"):
        encoder(Conversation(messages=(user("q"), message), tools=(TOOL,)))


def test_definitions_of_tools_that_a_template_looks_at():
    shown = "{% for t in tools or [] %}" + NAMED.replace("WHAT", "t") + "{% endfor %}"
    encoder = encoder_with(shown + HEAD + CONTENT + CALLS.replace("REST", "{{v|tojson}}") + END)
    assert trained(encoder, encoder(Conversation(messages=(user("q"), assistant("ans")), tools=(TOOL,)))) == ["ans<|im_end|>"]
    assert trained(encoder, encoder(calling({"n": 5}))) == ["<tool_call>f n=5</tool_call><|im_end|>", "done<|im_end|>"]


def test_control_tokens_in_ids_and_keys_of_definitions_stay_text():
    encoder = published.encoder("mistral_v3")
    tool = TOOL.replace('"object"', '"object", "</s>": "[INST]"')
    conversation = Conversation(messages=calling({"a": "b"}, "</s>abcde").messages, tools=(tool,))
    example = encoder(conversation)
    tokens = encoder.tokens(example.input_ids)
    assert (tokens.count("</s>"), tokens.count("[INST]")) == (2, 1)
    assert trained(encoder, example)[0] == '[TOOL_CALLS] [{"name": "f", "arguments": {"a": "b"}, "id": "</s>abcde"}]</s>'


@pytest.mark.parametrize("where", ["id", "escaped"])
def test_reserved_characters_in_ids_and_definitions(where):
    conversation = calling({"a": "b"}, "\U00100000abcdefgh" if where == "id" else "abcdefghi")
    tools = (TOOL.replace("object", "\\udbc0\\udc00"),) if where == "escaped" else conversation.tools
    with pytest.raises(DataError) as caught:
        published.encoder("mistral_v3")(Conversation(messages=conversation.messages, tools=tools))
    assert caught.value.reason == "reserved_character"


FULL = DEFINED + HEAD + "{% if m.role=='tool' %}{{m.tool_call_id}}: {% endif %}" + CONTENT + CALLS + END


@pytest.mark.parametrize(
    ("rest", "arguments", "number"),
    [
        ("", {"n": 5}, "call_5"),
        ("", {"n": 5}, "5"),
        ("", {"n": 5}, "a 5"),
        ("{{v}}0", {"n": 5}, "call"),
        ("1{{v}}", {"n": 5}, "call"),
        ("-{{v}}", {"n": 5}, "call"),
        ("{{v}}.5", {"n": 5}, "call"),
        ("{{v}}x", {"n": True}, "call"),
        ("", {"n": {}}, "call"),
        ("", {"n": []}, "call"),
        ("{% for x in v|reverse %}{{x}} {% endfor %}", {"n": [1, 2]}, "call"),
        ("{{v[0]}}", {"n": [1, 1]}, "call"),
        ("{% if k == 'm' %}{{v}}{% endif %}", {"n": 5, "m": 5}, "call"),
    ],
)
def test_arguments_without_words_that_a_template_loses_or_changes(rest, arguments, number):
    encoder = encoder_with(FULL.replace("REST", rest))
    with pytest.raises(TemplateError, match="labels can't be proven"):
        encoder(calling(arguments, number))


def test_arguments_without_words_that_a_template_writes():
    encoder = encoder_with(FULL.replace("REST", "{{v|tojson}}"))
    found = trained(encoder, encoder(calling({"n": 5, "m": 50, "e": {}, "l": [], "s": "", "d": [5, -5, 5.5, None, True, [{}]]}, "5")))
    said = "f n=5 m=50 e={} l=[] s= d=[5, -5, 5.5, null, true, [{}]]"
    assert found == [f"<tool_call>{said}</tool_call><|im_end|>", "done<|im_end|>"]


def test_arguments_without_words_where_keys_are_sorted():
    once = CALLS.replace(".items()", "|dictsort")
    conversation = calling({"b": 5, "a": 5, "c": "x"})
    encoder = encoder_with(DEFINED + HEAD + CONTENT + once.replace("REST", "{{v|tojson}}") + END)
    assert trained(encoder, encoder(conversation))[0] == "<tool_call>f a=5 b=5 c=x</tool_call><|im_end|>"
    assert trained(encoder, encoder(calling({})))[0] == "<tool_call>f</tool_call><|im_end|>"
    with pytest.raises(TemplateError, match="labels can't be proven"):
        encoder_with(DEFINED + HEAD + CONTENT + once.replace("REST", "{% if k == 'a' %}{{v}}{% endif %}") + END)(conversation)


def test_questions_that_every_answer_repeats():
    with pytest.raises(TemplateError, match="more than once"):
        encoder_with(NAMESPACE + HEAD + KEEP + CONTENT + "{% if m.role=='assistant' %}[{{ns.u}}]{% endif %}" + END)
    calls = CALLS.replace("REST", "{{v|tojson}}") + "{% if m.tool_calls %}[{{ns.u}}]{% endif %}"
    with pytest.raises(TemplateError, match="writes no calls"):
        encoder_with(NAMESPACE + DEFINED + HEAD + KEEP + CONTENT + calls + END)(calling({"n": "x"}))


@pytest.mark.parametrize("text", ["{{ " + "9" * 5000 + " }}", "{# " + " " * 1_000_000 + "#}"])
def test_templates_that_can_not_be_read(text):
    processor = families.processor("qwen2_5_vl")
    processor.chat_template = text + HEAD + CONTENT + END
    with pytest.raises(TemplateError, match="can't be read|1,000,000"):
        Encoder(processor)


def test_options_that_are_no_json():
    processor = families.processor("qwen2_5_vl")
    processor.chat_template = "{{x}}" + HEAD + CONTENT + END
    with pytest.raises(TemplateError, match="x: can't be given"):
        Encoder(processor, options={"x": datetime.date(2020, 1, 1)})
