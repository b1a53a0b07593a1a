"""The peer that one writes oneself: transformers, peft and a loop. The same samples, padded, in the file's order.

    python benchmarks/peers/plain.py JOB.json

JOB.json: model, data (records.jsonl), output, size, lr, lora (rank or 0), checkpointing, frozen (whether the tower is), grouped (like
lengths together, within 50 steps, as the Trainer's own sampler does on data of any real size).
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from transformers import AutoModelForImageTextToText, AutoProcessor

IGNORED = -100
GROUP_STEPS = 50


class Collate:
    """Records -> padded tensors; labels on the answers alone, found by the length of the prompt."""

    def __init__(self, processor: Any, folder: Path) -> None:
        self.processor, self.folder = processor, folder

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """input_ids, labels and the rest, [B, T]."""
        chats = [[self._turn(message) for message in row["messages"]] for row in rows]
        images = [[Pillow.open(self.folder / name).convert("RGB") for name in row["images"]] for row in rows]
        whole = [self.processor.apply_chat_template(chat) for chat in chats]
        batch = self.processor(text=whole, images=images, return_tensors="pt", padding=True)
        labels = torch.full_like(batch["input_ids"], IGNORED)
        for i, chat in enumerate(chats):
            prompt = self.processor.apply_chat_template(chat[:-1], add_generation_prompt=True)
            answered = len(self.processor.tokenizer(whole[i].removeprefix(prompt), add_special_tokens=False)["input_ids"])
            end = int(batch["attention_mask"][i].sum())
            labels[i, end - answered : end] = batch["input_ids"][i, end - answered : end]
        return {**batch, "labels": labels}

    @staticmethod
    def _turn(message: dict[str, str]) -> dict[str, Any]:
        parts = [{"type": "text", "text": message["content"].removeprefix("<image>")}]
        if message["content"].startswith("<image>"):
            parts.insert(0, {"type": "image"})
        return {"role": message["role"], "content": parts}


def order(rows: list[dict[str, Any]], size: int, *, grouped: bool) -> list[list[int]]:
    """The records of each step."""
    places = list(range(len(rows)))
    if grouped:
        random.Random(0).shuffle(places)
        lengths = [len(row["messages"][0]["content"]) for row in rows]
        chunks = [places[i : i + GROUP_STEPS * size] for i in range(0, len(places), GROUP_STEPS * size)]
        places = [place for chunk in chunks for place in sorted(chunk, key=lambda i: -lengths[i])]
    return [places[i : i + size] for i in range(0, len(places), size)]


def load(job: dict[str, Any]) -> Any:
    """The model, with what is not trained frozen."""
    model = AutoModelForImageTextToText.from_pretrained(job["model"], dtype=torch.float32)
    towers = [module for name, module in model.named_modules() if name.endswith(("visual", "vision_model"))]
    if job["lora"]:
        from peft import LoraConfig, get_peft_model

        targets = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj" if "qwen" in job["model"] else r".*text_model.*_proj"
        model = get_peft_model(model, LoraConfig(r=job["lora"], lora_alpha=2 * job["lora"], target_modules=targets))
    elif job["frozen"]:
        for tower in towers:
            tower.requires_grad_(False)
    if job["checkpointing"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if job["lora"]:
            model.enable_input_require_grads()
    return model.train()


def main() -> None:
    """One pass over the data."""
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    torch.manual_seed(0)
    data = Path(job["data"])
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    processor, model = AutoProcessor.from_pretrained(job["model"]), load(job)
    collate = Collate(processor, data.parent)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job["lr"], weight_decay=0.0, fused=True)
    for chosen in order(rows, job["size"], grouped=job["grouped"]):
        loss = model(**collate([rows[i] for i in chosen])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
