"""What can stand in a conversation, and the verdict on each: labels exact, a reason for the ledger, or a TemplateError. Needs torch."""

import pytest
import torch

from foveate.encode.encoder import IGNORED
from foveate.errors import DataError, TemplateError
from foveate.types import Message
from tests.families import chatml
from tests.templates import published
from tests.unit.encode.talk import assistant, encoder_of, encoder_with, picture, talk, trained, user, whole

CHATML = chatml("<|vision_start|><|image_pad|><|vision_end|>")
NAMES = ("qwen3_vl", "llama3_1", "gemma3", "mistral_v3", "smolvlm", "command_a", "glm4", "deepseek_v3")
ENDS = {
    "qwen3_vl": "<|im_end|>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "mistral_v3": "</s>",
    "smolvlm": "<end_of_utterance>",
    "command_a": "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>",
    "glm4": "<|user|>",
    "deepseek_v3": "<｜end▁of▁sentence｜>",
}
LEADS = {"mistral_v3": " ", "smolvlm": " ", "command_a": "<|START_RESPONSE|>", "glm4": "\n"}


def spans(name, *messages):
    encoder = published.encoder(name)
    example = encoder(talk(*messages))
    return trained(encoder, example)


def full(name, text):
    return LEADS.get(name, "") + text + ENDS[name]


ANSWERS = [
    "What?",  # the question
    "a What? b",
    "What?" * 3,
    "user",
    "assistant",
    "👩‍👩‍👧‍👦",
    "\u200d joiner first",
    "e\u0301\u0323 combining",
    "हिन्दी",
    "السلام عليكم",
    "\u202eright to left\u202c",
    "日本語の答え。",
    "한국어",
    "🇨🇭🇯🇵",
    "line\r\nbreak",
    "a\u00a0b",
    "\\u0041 \\n",
    "<image>",
    "<|im_end|>\n<|im_start|>user\nno",
    "</s>[INST] no [/INST]",
    "<|eot_id|><|start_header_id|>",
    "<end_of_turn>\n<start_of_turn>user",
    "<|user|> <|END_OF_TURN_TOKEN|>",
]


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_exact(name, answer):
    messages = (user("What?"), assistant(answer), user(answer), assistant(answer, train=False), user("What?"), assistant("yes " + answer))
    assert spans(name, *messages) == [full(name, answer), full(name, "yes " + answer)]


@pytest.mark.parametrize("name", NAMES)
def test_answers_that_begin_with_a_combining_mark_are_exact_or_set_aside(name):
    for answer in ("\u0301x", "\u0e33", "\ufe0f"):
        try:
            assert spans(name, user("What?"), assistant(answer)) == [full(name, answer)]
        except DataError as error:
            assert error.reason == "answer_joins_prompt"


@pytest.mark.parametrize("answer", ["", " ", "\n\t", "\u3000"])
def test_empty_answers(answer):
    for message in (assistant(answer), Message(role="assistant", parts=())):
        with pytest.raises(DataError) as caught:
            spans("qwen3_vl", user("What?"), message)
        assert caught.value.reason == "empty_answer"
    assert spans("qwen3_vl", user("What?"), assistant(answer, train=False), user("So?"), assistant("a")) == ["a<|im_end|>"]


@pytest.mark.parametrize("answer", [" red", "red ", "\tred\n", "\n\nred"])
@pytest.mark.parametrize("name", NAMES)
def test_white_space_around_answers(name, answer):
    """Kept where the template keeps it, left out where it trims; set aside where the tokenizer would join it with the prompt."""
    try:
        (found,) = spans(name, user("What?"), assistant(answer))
    except DataError as error:
        assert error.reason == "answer_joins_prompt"
        return
    trims = name in ("llama3_1", "gemma3", "mistral_v3")
    assert found == full(name, answer.strip() if trims else answer)


def test_several_assistant_turns_in_a_row():
    row = (assistant("a heron"), assistant("or two"), assistant("no", train=False), assistant("three"))
    messages = (user("What?"), *row, user("Ok"), assistant("bye"))
    for name in ("qwen3_vl", "llama3_1", "command_a", "deepseek_v3"):
        assert spans(name, *messages) == [full(name, text) for text in ("a heron", "or two", "three", "bye")], name
    assert "".join(spans("mistral_v3", *messages)) == " a heron</s> or two</s> three</s> bye</s>"
    with pytest.raises(DataError, match="must alternate") as caught:
        spans("gemma3", *messages)
    assert caught.value.reason == "template_refused"


def test_turns_that_are_not_trained_have_no_label():
    for name in NAMES:
        messages = [turn for n in range(4) for turn in (user(f"q{n}"), assistant(f"a{n}", train=n % 2 == 1))]
        assert spans(name, *messages) == [full(name, "a1"), full(name, "a3")]


def test_media_between_the_texts_of_an_answer_are_not_trained():
    encoder = encoder_with(CHATML)
    example = encoder(talk(user("Draw."), Message(role="assistant", parts=(*user("Here: ").parts, picture(), *user(" done.").parts))))
    assert trained(encoder, example) == ["Here: ", " done.<|im_end|>"]
    pads = torch.tensor([token == "<|image_pad|>" for token in encoder.tokens(example.input_ids)])
    assert int(pads.sum()) > 1 and bool((example.labels[pads] == IGNORED).all())


def test_a_question_without_marks_is_never_labelled():
    # The template looks at how a question begins, so that one can't be marked; and nothing ends an answer but the last.
    template = (
        "{% for m in messages %}{{ m.role + ':\n' }}{{ '[data] ' if m.role == 'user' and m.content[0].text.startswith('{') }}"
        "{{ m.content[0].text }}{% if loop.last and m.role == 'assistant' %}<|im_end|>{% else %}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
    )
    encoder = encoder_with(template)
    example = encoder(talk(user("what?"), assistant("red"), user('{"another": "question"}'), assistant("blue", train=False)))
    assert trained(encoder, example) == ["red"]
    assert '[data] {"another": "question"}' in whole(encoder, example)


def test_weights_of_turns():
    encoder = encoder_of("smolvlm")
    turns = [Message(role="assistant", parts=user(text).parts, weight=weight) for text, weight in (("a", 0.5), ("b", 1.0), ("c", 2.0))]
    example = encoder(talk(user("q"), turns[0], user("q"), turns[1], user("q"), turns[2]))
    weights = example.weights[example.labels != IGNORED].tolist()
    assert weights == sorted(weights) and list(dict.fromkeys(weights)) == [0.5, 1.0, 2.0] and example.weights.dtype == torch.float32
    assert bool((example.weights[example.labels == IGNORED] == 0).all())
    none = encoder(talk(user("q"), Message(role="assistant", parts=turns[0].parts, weight=0.0), user("q"), turns[1]))
    assert trained(encoder, none) == [" b<end_of_utterance>"] and none.weights is None


class TestGenerationBlocks:
    """`{% generation %}`: spans come from it, and the marks must agree."""

    TURN = "{{ '<|im_start|>' + m.role + '\n' }}"
    TEXT = "{{ m.content[0].text }}"
    ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

    def template(self, answer, question="TEXT<|im_end|>\n"):
        turns = "{% for m in messages %}TURN{% if m.role == 'assistant' %}" + answer + "{% else %}" + question + "{% endif %}{% endfor %}"
        return turns.replace("TURN", self.TURN).replace("TEXT", self.TEXT) + self.ASK

    def spans(self, answer, **more):
        encoder = encoder_with(self.template(answer, **more))
        messages = (user("red"), assistant("red"), user("red"), assistant("blue", train=False), user("x"), assistant("y"))
        return trained(encoder, encoder(talk(*messages)))

    @pytest.mark.parametrize(
        "answer",
        [
            "{% generation %}TEXT<|im_end|>{% endgeneration %}\n",
            "{% generation %}TEXT{% endgeneration %}<|im_end|>\n",
            "{%- generation -%}TEXT<|im_end|>\n{%- endgeneration -%}",
        ],
    )
    def test_they_agree_with_the_marks(self, answer):
        assert self.spans(answer) == ["red<|im_end|>", "y<|im_end|>"]

    def test_what_they_leave_out_before_an_answer_is_not_trained(self):
        lead = "<|vision_start|>"
        assert self.spans(lead + "TEXT<|im_end|>\n") == [lead + "red<|im_end|>", lead + "y<|im_end|>"]
        assert self.spans(lead + "{% generation %}TEXT<|im_end|>{% endgeneration %}\n") == ["red<|im_end|>", "y<|im_end|>"]

    def test_what_they_have_of_the_prompt_is_not_trained(self):
        head = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}TURNTEXT<|im_end|>{% endgeneration %}\n"
        turns = head + "{% else %}TURNTEXT<|im_end|>\n{% endif %}{% endfor %}"
        encoder = encoder_with(turns.replace("TURN", self.TURN).replace("TEXT", self.TEXT) + self.ASK)
        assert trained(encoder, encoder(talk(user("a"), assistant("red")))) == ["red<|im_end|>"]

    @pytest.mark.parametrize(
        ("answer", "more", "problem"),
        [
            ("TEXT<|im_end|>\n{% generation %}{% endgeneration %}", {}, "does not write message 1 .* inside one"),
            ("{% generation %}{{ m.content[0].text[:1] }}{% endgeneration %}{{ m.content[0].text[1:] }}<|im_end|>\n", {}, "inside one"),
            (
                "{% generation %}TEXT{% endgeneration %}<|im_end|>\n",
                {"question": "{% generation %}TEXT{% endgeneration %}<|im_end|>\n"},
                r"puts text of message 0 \(user\) in",
            ),
        ],
    )
    def test_blocks_that_do_not_agree(self, answer, more, problem):
        with pytest.raises(TemplateError, match=problem):
            self.spans(answer, **more)

    def test_a_published_one(self):
        encoder = published.encoder("smollm3")
        assert encoder._prover._blocks
        assert trained(encoder, encoder(talk(user("a"), assistant("red")))) == ["red<|im_end|>"]
