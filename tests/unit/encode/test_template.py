"""Where templates come from, and what happens to the ones that do not work. Needs transformers."""

import json

import pytest
from transformers import AutoProcessor

from foveate.encode.chat import to_chat
from foveate.encode.encoder import Encoder
from foveate.encode.habits import find_habits
from foveate.encode.render import Renderer
from foveate.encode.sandbox import Limits
from foveate.encode.talk import Talk
from foveate.encode.template import resolve_chat_template, set_chat_template
from foveate.errors import DataError, TemplateError, TemplateStopped
from tests import families
from tests.unit.encode.talk import assistant, encoder_of, encoder_with, picture, talk, trained, user

CHATML = families.chatml("<|vision_start|><|image_pad|><|vision_end|>")


def test_a_template_is_a_text_a_file_or_json(tmp_path):
    processor = families.processor("qwen2_5_vl")
    (tmp_path / "t.jinja").write_text("\ufeff" + CHATML, encoding="utf-8")
    (tmp_path / "t.json").write_text(json.dumps({"chat_template": CHATML}))
    (tmp_path / "named.json").write_text(json.dumps({"chat_template": [{"name": "default", "template": CHATML}]}))
    written = [CHATML, tmp_path / "t.jinja", tmp_path / "t.json", tmp_path / "named.json", json.dumps({"chat_template": "x{{ 1 }}"})]
    found = [resolve_chat_template(str(value), processor) for value in written]
    assert found == [CHATML] * 4 + ["x{{ 1 }}"]
    assert resolve_chat_template(None, processor) == processor.chat_template


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("missing.jinja", "neither a file nor a template"),
        ("{{ messages", "line 1 has a mistake"),
        ("{% for m in messages %}\n{{ m.content }", "mistake"),
        ('{"other": 1}', "no text under `chat_template`"),
        ('{"chat_template": ', "not JSON"),
    ],
)
def test_what_is_no_template_is_refused(value, problem):
    with pytest.raises(TemplateError, match=problem) as caught:
        set_chat_template(families.processor("qwen2_5_vl"), value)
    assert caught.value.fix


def test_a_file_without_a_template(tmp_path):
    (tmp_path / "t.jinja").write_text("hello")
    with pytest.raises(TemplateError, match="holds no template"):
        resolve_chat_template(str(tmp_path / "t.jinja"), families.processor("qwen2_5_vl"))


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm", "gemma3"])
def test_the_template_is_saved_with_the_processor(tmp_path, name):
    processor = families.processor(name)
    own = processor.chat_template
    before = Encoder(processor).fingerprint()
    processor.save_pretrained(tmp_path / "own")
    assert Encoder(AutoProcessor.from_pretrained(tmp_path / "own")).fingerprint() == before
    set_chat_template(processor, "{# mine #}" + own)
    assert Encoder(processor).fingerprint() != before
    processor.save_pretrained(tmp_path / "mine")
    again = AutoProcessor.from_pretrained(tmp_path / "mine")
    assert again.chat_template == "{# mine #}" + own
    assert Encoder(again).fingerprint() == Encoder(processor).fingerprint()


def test_no_template_at_all():
    processor = families.processor("llava")
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        Encoder(processor)


@pytest.mark.parametrize(
    "broken",
    ["{{ messages[0].content.missing.more }}", "{{ 1 / 0 }}", "{{ messages | nosuchfilter }}", "{% for i in range(10**9) %}x{% endfor %}"],
)
def test_templates_that_fail(broken):
    with pytest.raises(TemplateError, match="the chat template fails"):
        encoder_with(broken + CHATML)


def test_a_template_that_wants_a_medium_first():
    wants = "{% if messages[0].content[0].type != 'image' %}{{ raise_exception('image first') }}{% endif %}"
    encoder = encoder_with(wants + CHATML)
    assert trained(encoder, encoder(talk(user(picture(), "a"), assistant("red")))) == ["red<|im_end|>"]
    with pytest.raises(DataError, match="image first"):
        encoder(talk(user("a"), assistant("red")))


def test_chats_have_one_part_for_neighbouring_texts_and_none_for_empty_ones():
    conversation = talk(user("a", picture(), "", "b", "c"), assistant("d"))
    parts = to_chat(conversation).messages[0]["content"]
    assert parts == [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "bc"}]
    assert to_chat(conversation, form="mixed").messages[1]["content"] == "d"
    assert to_chat(conversation, form="strings", placeholders={"image": "<i>"}).messages[0]["content"] == "a<i>bc"
    encoder = encoder_of("smolvlm")
    assert trained(encoder, encoder(conversation)) == [" d<end_of_utterance>"]


@pytest.mark.parametrize(
    ("trap", "problem"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "not done after 0.2 s"),
        ("{{ 'a' * 10**10 }}", "needs more than 256 MiB"),
    ],
)
@pytest.mark.parametrize("asked", ["tools", "messages[1].tool_calls", "messages[1].reasoning_content"])
def test_a_template_that_hangs_on_a_trial_is_not_taken_for_one_that_does_not_write_it(trap, problem, asked):
    processor = families.processor("qwen2_5_vl")
    set_chat_template(processor, "{% if messages | length > 1 and " + asked + " %}" + trap + "{% endif %}" + CHATML)
    render = Renderer(processor, limits=Limits(cpu_s=0.2, memory_bytes=256 << 20))
    talk = Talk(render, "parts", None, {})
    assert talk.attempt("user", "assistant") is not None
    with pytest.raises(TemplateStopped, match=problem):
        find_habits(talk, {"<|im_end|>": 0})


def test_a_template_that_hangs_on_every_conversation_is_stopped_once():
    processor = families.processor("qwen2_5_vl")
    set_chat_template(processor, CHATML + "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    talk = Talk(Renderer(processor, limits=Limits(cpu_s=0.2)), "parts", None, {})
    with pytest.raises(TemplateStopped, match="not done after"):
        talk.attempt("user")
