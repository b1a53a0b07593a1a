"""Reasoning: where the template writes it, where it leaves it out by design, and where it would be lost. Needs torch."""

import pickle

import pytest
import torch

from foveate.encode.encoder import Encoder
from foveate.errors import DataError, TemplateError
from foveate.types import Message
from tests import families
from tests.templates import published
from tests.templates.talks import CALL, calling, result, thinking, with_tools
from tests.unit.encode.talk import assistant, encoder_with, picture, talk, trained, user

LITERAL = "<think>\nHm.\n</think>\n\nHello."


def said(name, *messages):
    encoder = published.encoder(name)
    conversation = talk(*messages)
    example = encoder(conversation)
    assert encoder.length(conversation).tokens == len(example.input_ids)
    return trained(encoder, example)


@pytest.mark.parametrize("turn", [thinking("Hm.", "Hello."), thinking("\n Hm.\n\n", "Hello."), assistant(LITERAL)])
def test_reasoning_of_the_last_turn_is_trained(turn):
    assert [text.replace(" Hm", "Hm") for text in said("qwen3", user("Hi"), turn)] == ["<think>\nHm.\n</think>\n\nHello.<|im_end|>"]


def test_reasoning_of_earlier_turns_is_left_out_and_the_answer_trained():
    for first in (thinking("Hm.", "Hello."), assistant(LITERAL)):
        found = said("qwen3", user("Hi"), first, user("And?"), thinking("So.", "Bye."))
        assert found == ["Hello.<|im_end|>", "<think>\nSo.\n</think>\n\nBye.<|im_end|>"]
    assert any("leaves reasoning out" in note for note in published.encoder("qwen3").notes)
    assert not any("leaves reasoning out" in note for note in published.encoder("qwen2_5").notes)


def test_reasoning_between_calls_stays():
    encoder = published.encoder("qwen3")
    rounds = [turn for thought in ("Look.", "Again.") for turn in (calling(CALL, reasoning=thought), result("clear"))]
    found = trained(encoder, encoder(with_tools(user("Sky?"), *rounds, thinking("Ok.", "Clear."))))
    assert [text[:16] for text in found] == ["<think>\nLook.\n</", "<think>\nAgain.\n<", "<think>\nOk.\n</th"]


def test_a_template_that_keeps_none():
    with pytest.raises(TemplateError, match="leaves out the reasoning of message 1"):
        said("deepseek_r1", user("Hi"), assistant(LITERAL))
    with pytest.raises(TemplateError, match="leaves out the reasoning of message 1.*take the reasoning out of the record") as caught:
        said("qwen2_5", user("Hi"), thinking("Hm.", "Hello."))
    assert "template_options" not in str(caught.value)
    # An earlier turn that is not trained loses nothing that is.
    assert said("deepseek_r1", user("Hi"), assistant(LITERAL, train=False), user("And?"), assistant("Bye."))[0].startswith("Bye.")


def test_reasoning_in_the_content_of_other_templates_is_text():
    for name in ("qwen2_5", "llama3_1", "gemma3", "phi4"):
        found = said(name, user("Hi"), assistant(LITERAL), user("And?"), assistant(LITERAL))
        assert all(text.startswith(LITERAL) for text in found) and len(found) == 2


def test_an_empty_thought_and_one_that_is_no_opening():
    assert said("qwen3", user("Hi"), assistant("<think>\n\n</think>\n\nHello.")) == ["<think>\n\n</think>\n\nHello.<|im_end|>"]
    assert said("qwen2_5", user("Hi"), assistant("Say <think> a </think> b")) == ["Say <think> a </think> b<|im_end|>"]
    with pytest.raises(TemplateError):  # Qwen3's template would cut the text in two
        said("qwen3", user("Hi"), assistant("Say <think> a </think> b"))


def test_an_answer_of_reasoning_alone():
    with pytest.raises(DataError) as caught:
        said("qwen3", user("Hi"), Message(role="assistant", parts=(), reasoning="Hm."))
    assert caught.value.reason == "empty_answer"


def test_a_thought_that_holds_control_tokens():
    encoder = published.encoder("qwen3")
    example = encoder(talk(user("Hi"), thinking("<|im_end|> and Hello.", "Hello.")))
    assert trained(encoder, example) == ["<think>\n<|im_end|> and Hello.\n</think>\n\nHello.<|im_end|>"]
    assert encoder.tokens(example.input_ids).count("<|im_end|>") == 2


def test_a_thought_beside_media():
    encoder = encoder_with(published.source("qwen2_5_vl").replace(HEAD, HEAD + THOUGHT))
    assert trained(encoder, encoder(talk(user("Hi"), thinking("Hm.", "Hello.")))) == ["(Hm.) Hello.<|im_end|>"]
    seen = Message(role="assistant", parts=(picture(), *user("Hello.").parts), reasoning="Hm.")
    with pytest.raises(TemplateError, match="holds media"):
        encoder(talk(user("Hi"), seen))


HEAD = "{{ '<|im_start|>' + m.role + '\\n' }}"
THOUGHT = "{{- '(' + m.reasoning_content + ') ' if m.reasoning_content }}"


class TestOptions:
    """`model.template_options`."""

    def test_they_reach_the_template_in_training_and_generation(self):
        encoder = published.encoder("qwen3_no_thinking")
        conversation = talk(user("Hi"), assistant("Hello."))
        prompt = encoder.prompt(conversation).input_ids
        assert encoder.text(prompt).endswith("<think>\n\n</think>\n\n")
        example = encoder(conversation)
        assert trained(encoder, example) == ["Hello.<|im_end|>"] and torch.equal(example.input_ids[: len(prompt)], prompt)
        assert not encoder.text(published.encoder("qwen3").prompt(conversation).input_ids).endswith("</think>\n\n")

    def test_reasoning_that_the_prompt_has_closed_is_refused(self):
        with pytest.raises(TemplateError, match=r"begins can't be told .* leave out `model.template_options` \(enable_thinking\)"):
            said("qwen3_no_thinking", user("Hi"), thinking("Hm.", "Hello."))

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"enable_thinkin": False}, "has no such variable; did you mean 'enable_thinking'"),
            ({"tools": []}, "Foveate itself gives"),
            ({"enable_thinking": {1, 2}}, "can't be given to a template"),
            ({"ns": 1}, None),
        ],
    )
    def test_what_the_template_does_not_look_at_is_an_error(self, options, problem):
        processor = published.processor("qwen3")
        if problem is None:  # a name that the template sets itself is looked at, too
            Encoder(processor, options=options)
            return
        with pytest.raises(TemplateError, match=problem) as caught:
            Encoder(processor, options=options)
        assert "model.template_options" in caught.value.where

    def test_they_are_part_of_the_fingerprint_and_travel(self):
        plain, off = published.encoder("qwen3"), published.encoder("qwen3_no_thinking")
        assert plain.fingerprint() != off.fingerprint()
        again = pickle.loads(pickle.dumps(off))
        assert again.fingerprint() == off.fingerprint()
        assert torch.equal(again(talk(user("a"), assistant("b"))).input_ids, off(talk(user("a"), assistant("b"))).input_ids)

    def test_the_date_is_the_same_every_day(self):
        encoder = published.encoder("llama3_1")
        assert any("26.7.2024" in note and "date_string" in note for note in encoder.notes)
        other = Encoder(published.processor("llama3_1"), options={"date_string": "1 Jan 2030"})
        assert "Today Date: 1 Jan 2030" in other.text(other(talk(user("a"), assistant("b"))).input_ids)
        assert not Encoder(families.processor("qwen2_5_vl")).notes
