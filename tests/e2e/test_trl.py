"""The same batches through TRL's SFTTrainer and through `foveate train`: the losses of 20 steps agree to 1e-4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import SequentialSampler
from transformers import AutoModelForImageTextToText, AutoProcessor

from foveate.batching.plan import Plan
from tests import families
from tests.e2e.conftest import metrics, picture, write_jsonl, write_recipe

trl = pytest.importorskip("trl")

STEPS, SIZE, RECORDS, SEED = 20, 4, 24, 3
END_OF_TURN = {"smolvlm": "<end_of_utterance>", "qwen2_5_vl": "<|im_end|>"}
RATE = dict(lr=1e-3, betas=[0.9, 0.95], eps=1e-8)
WORDS = {"red": "red circle", "green": "a green one, I think", "blue": "blue", "yellow": "three yellow squares and one circle"}


def rows(folder: Path) -> list[dict[str, str]]:
    """Questions about pictures of several sizes, with answers of several lengths."""
    found = []
    for i, colour in zip(range(RECORDS), list(WORDS) * RECORDS, strict=False):
        picture(colour, (40 + 8 * (i % 5), 40 + 4 * (i % 3))).save(folder / f"{i}.png")
        found.append({"image": f"{i}.png", "question": f"what color is object {i % 7}?", "answer": WORDS[colour]})
    return found


def collator(processor: Any, end: int):
    """The batches of TRL's run: one call of the processor, labels on the answers alone, by hand."""

    def chat(row: dict[str, str], *, answered: bool) -> str:
        content = [{"type": "image"}, {"type": "text", "text": row["question"]}]
        turns = [{"role": "user", "content": content}]
        turns += [{"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]}] if answered else []
        return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=not answered)

    def collate(batch: list[dict[str, str]]) -> dict[str, torch.Tensor]:
        images = [[Image.open(row["image"])] for row in batch]
        inputs = processor(text=[chat(row, answered=True) for row in batch], images=images, padding=True, return_tensors="pt")
        labels = torch.full_like(inputs["input_ids"], -100)
        for i, row in enumerate(batch):
            asked = processor(text=[chat(row, answered=False)], images=[images[i]], return_tensors="pt")["input_ids"][0]
            ids = inputs["input_ids"][i].tolist()
            assert ids[: len(asked)] == asked.tolist()
            last = len(asked) + ids[len(asked) :].index(end)
            labels[i, len(asked) : last + 1] = inputs["input_ids"][i, len(asked) : last + 1]
        return dict(inputs) | {"labels": labels}

    return collate


class InOrder(trl.SFTTrainer):
    """Takes the records as they come."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)


def by_trl(base: Path, folder: Path, records: list[dict[str, str]], end: int) -> list[float]:
    """The loss of each step."""
    from datasets import Dataset

    processor = AutoProcessor.from_pretrained(base)
    arguments = trl.SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=SIZE,
        max_steps=STEPS,
        learning_rate=RATE["lr"],
        adam_beta1=RATE["betas"][0],
        adam_beta2=RATE["betas"][1],
        adam_epsilon=RATE["eps"],
        weight_decay=0.0,
        max_grad_norm=1.0,
        lr_scheduler_type="constant",
        optim="adamw_torch",
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = InOrder(
        model=AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_list(records),
        processing_class=processor,
        data_collator=collator(processor, end),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("name", END_OF_TURN)
def test_twenty_steps_have_the_losses_of_trl(work: Path, foveate, name: str) -> None:
    base = families.save(name, work / "base")
    records = rows(work)
    write_jsonl(work / "train.jsonl", records)
    recipe = write_recipe(
        work,
        base,
        data={"train": [{"path": "train.jsonl"}], "workers": 0},
        tuning={"type": "full", "parts": ["vision", "projector", "language", "embeddings", "head"]},
        batch={"size": SIZE, "max_tokens": 4096, "pack": True},
        optim={**RATE, "weight_decay": 0.0, "schedule": "constant", "warmup": 0, "max_grad_norm": 1.0},
        train={"steps": STEPS, "seed": SEED, "output": "run"},
    )
    result = foveate("train", recipe)
    assert result.code == 0, result.text
    ours = [line["loss"] for line in metrics(work / "run") if line["event"] == "step"]

    plan = Plan(records=RECORDS, size=SIZE, seed=SEED, steps=STEPS)
    order = [records[slot] for k in range(STEPS) for slot in plan.step(k)]
    tokenizer = AutoProcessor.from_pretrained(base).tokenizer
    theirs = by_trl(base, work, order, tokenizer.convert_tokens_to_ids(END_OF_TURN[name]))
    assert len(ours) == len(theirs) == STEPS
    assert ours[-1] < 0.7 * ours[0]  # something was learnt, so equality says something
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
    assert apart <= 1e-4, f"{apart:.1e} apart"
