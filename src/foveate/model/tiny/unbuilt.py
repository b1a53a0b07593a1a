"""Families of transformers that have no tiny model here, with the reason; docs/families.md lists them."""

from __future__ import annotations

UNBUILT: dict[str, str] = {
    "qwen2_5_omni": "its class has no forward; Foveate takes the thinker out of its folder and trains that (`qwen2_5_omni_thinker`)",
    "qwen3_omni_moe": "its class has no forward; Foveate takes the thinker out of its folder and trains that (`qwen3_omni_moe_thinker`)",
    "diffusion_gemma": "it writes blocks of tokens by taking noise away, so it is not trained to predict the next token",
    "idefics": "its processor puts a conversation's images behind its last word, where no answer can see them (transformers 5.23)",
    "mistral4": "a language model without media (`Mistral4ForCausalLM`); what sees images is `mistral3` around it",
    "pi0": "it gives a robot's movements, not text: its forward asks for a state and noise, and its loss is that of flow matching",
    "shieldgemma2": (
        "its processor asks questions of its own about an image and drops the conversation's text; as a language model (Gemma 3) "
        "it is saved under names that transformers 5.23 does not find again"
    ),
    "blip": "its `generate` writes over the first token of a prompt and drops the last, so it is not asked as it was trained",
    "blip-2": "its processor puts the image's tokens before the ids of its tokenizer, where no text accounts for them",
    "evolla": "it reads proteins (amino acids and folds), and no image, sound or clip",
    "fuyu": "its processor writes the mark that begins an answer behind the whole text that it is given, so behind the answer itself",
    "git": "its logits begin with those of the image's positions, which stand in no input, so labels would be off by as many",
    "instructblip": "its processor gives the Q-Former all of the text, so that it would read the answer in training",
    "instructblipvideo": "its processor gives the Q-Former all of the text, so that it would read the answer in training",
    "kosmos-2": "its processor writes ids of its own over those of its tokenizer, which mean other tokens in the text",
    "kosmos-2.5": "its processor refuses text without an image and cuts what is too long without a word, as its tokenizer is told to",
    "kyutai_speech_to_text": "sound and text go in side by side at every step, so that no answer follows a prompt",
    "pix2struct": "its processor paints the question onto the image, or gives all text to the decoder",
    "pp_formulanet": "its processor takes an image and no text",
    "udop": "its tokenizer needs a box on the page for every word, which a conversation does not have",
    "vision-encoder-decoder": "a shell around any image encoder and text decoder, without a processor of its own",
    "voxtral_realtime": "its processor takes a sound and no text: the stream adds the sound to a token at every step, and asks nothing",
}
