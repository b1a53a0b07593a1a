"""The columns of the conformance matrix: what every family must do, each tried on a tiny model of its real architecture.

A column returns what its cell says besides the tick ("" for nothing), raises CantDo where the family can't do it and Foveate says so,
and fails with any other error.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from foveate.batching.collate import collate_packed
from foveate.batching.share import item_tokens, join, make_items, share_key
from foveate.config.model import ModelSection
from foveate.config.tuning import TuningSection
from foveate.dist.fsdp2 import blocks_of
from foveate.dist.mesh import Ranks
from foveate.encode.encoder import IGNORED, Encoder
from foveate.errors import DataError, ModelError
from foveate.evaluate.generate import generate_answers
from foveate.model.families import checkpointable, positions_of
from foveate.model.head import is_proven, whole_logits
from foveate.model.load import load_model, load_processor
from foveate.model.parts import bare_name, part_of
from foveate.model.tuning import apply_tuning, checkpoint_activations, freeze_towers
from foveate.train.export import export_model
from foveate.types import MediaKind
from tests.conformance import plain
from tests.conformance.subject import (
    ABOUT,
    ODD,
    SAME,
    CantDo,
    Script,
    Subject,
    assert_equal,
    gradients,
    logits_of,
    loss_of,
    medium_file,
    segmented,
)

_TOWERS = {"vision", "projector"}


def encodes(subject: Subject) -> str:
    """Every kind of medium, and the cost known from headers alone."""
    assert subject.kinds, "no kind of medium finds its way through template and processor"
    for kind in subject.kinds:
        for conversation, example in zip(subject.about(kind), subject.examples[kind], strict=True):
            assert subject.encoder.length(conversation).tokens == len(example.input_ids), f"{kind}: length differs from the encoding"
            assert example.kinds == {kind} and example.media
    for what, conversation in subject.odd.items():
        if what in subject.examples:
            assert subject.encoder.length(conversation).tokens == len(subject.examples[what][0].input_ids), f"{what}: length differs"
    cell = ", ".join(subject.kinds)
    return cell + (f"; not {', '.join(subject.refused)}" if subject.refused else "")


def labels_proven(subject: Subject) -> str:
    """The labels are the answers' own tokens and the end of turn, nothing else; words of the answer in the question are not labelled."""
    asked = {**{kind: subject.about(kind) for kind in subject.kinds}, **{what: [talk] for what, talk in subject.odd.items()}}
    for what, examples in subject.examples.items():
        for conversation, example in zip(asked[what], examples, strict=True):
            trained = example.labels != IGNORED
            assert torch.equal(example.labels[trained], example.input_ids[trained])
            starts = (trained & ~torch.cat([torch.tensor([False]), trained[:-1]])).nonzero()[:, 0].tolist()
            answers = [message.text for message in conversation.messages if message.trained]
            assert len(starts) == len(answers), f"{what}: {len(starts)} labelled stretches for {len(answers)} answers"
            for start, answer in zip(starts, answers, strict=True):
                stop = start + int((~trained[start:]).float().argmax()) if bool((~trained[start:]).any()) else len(trained)
                text = subject.encoder.text(example.input_ids[start:stop])
                if subject.family.decoder_start is not None:  # a decoder writes the beginning of its text too
                    text = text.removeprefix(subject.processor.tokenizer.bos_token or "")
                assert text.strip().startswith(answer), f"{what}: {text!r} is not {answer!r}"
                assert int(example.input_ids[stop - 1]) in subject.encoder.end_ids, f"{what}: no end of turn after {text!r}"
    return ""


def collates(subject: Subject) -> str:
    """A padded batch of different samples has the loss and gradients of the samples one by one."""
    model = subject.fresh()
    wanted = gradients(model, [subject.padded([example]) for example in subject.mixed], subject.family)
    assert_equal(gradients(model, subject.batches(subject.mixed), subject.family), wanted)
    dummy = subject.encoder.dummy(frozenset(subject.kinds[:1]))
    assert not (dummy.labels != IGNORED).any()
    return f"{len(subject.mixed)} samples"


def equals_transformers(subject: Subject) -> str:
    """Loss and gradients are those of plain transformers, with labels found by hand: every kind of medium, several of them and turns."""
    scripts = [(kind, script) for kind in subject.kinds for script in ABOUT]
    examples = [example for kind in subject.kinds for example in subject.examples[kind]]
    if subject.family.decoder_start is None:  # the reference of encoder-decoder models knows one question and one answer
        taken = [what for what in ODD if what in subject.examples]
        scripts += [(subject.kinds[0], ODD[what]) for what in taken]
        examples += [subject.examples[what][0] for what in taken]
    talks = [by_hand(subject, kind, script) for kind, script in scripts]
    wanted = plain.loss_and_gradients(subject.fresh(), subject.processor, talks, subject.encoder.end_ids, dict(subject.family.constants))
    model = subject.fresh()
    assert_equal(gradients(model, [subject.padded([example]) for example in examples], subject.family), wanted)
    assert is_proven(model) or whole_logits(model), "all logits are made: the family's row does not say what becomes of them"
    return ""


def by_hand(subject: Subject, kind: MediaKind, script: Script) -> plain.Talk:
    """The script for plain transformers."""
    numbers = {part for _, parts in script for part in parts if not isinstance(part, str)}
    files = {number: medium_file(kind, number, subject.rate_hz) for number in numbers}
    return plain.Talk(script=script, kind=kind, files=files, token=plain.token_for_strings(subject.processor, kind))


def packs(subject: Subject) -> str:
    """One packed row has the loss and gradients of the samples one by one."""
    if not subject.family.packs:
        raise CantDo(f"padded: {subject.family.why_padded}")
    model = subject.fresh()
    wanted = gradients(model, [subject.padded([example]) for example in subject.mixed], subject.family)
    assert_equal(gradients(segmented(model), subject.batches(subject.mixed, packed=True), subject.family), wanted)
    return ""


def shares_media(subject: Subject) -> str:
    """Conversations about one medium as a prefix and branches, beside another sample: the loss and gradients of the samples one by one."""
    if not subject.family.packs:
        raise CantDo("padded, so each sample has a row of its own")
    kinds = [kind for kind in subject.kinds if kind not in subject.family.alone]
    model, shared = subject.fresh(), []
    for kind in kinds:
        talks = [subject.played(script, kind) for script in SAME]
        lengths = {place: subject.encoder.length(talk) for place, talk in enumerate(talks)}
        if not lengths[0].lead:
            raise CantDo("its processor rewrites what stands around a medium")
        keys = {place: share_key(talks[place], length) for place, length in lengths.items()}
        items = make_items(lengths, keys, max_tokens=1 << 20)
        assert len(items) == 1, f"{kind}: the conversations are not known to be about one medium"
        members = [subject.encoder(talks[place]) for place in items[0]]
        words = [subject.encoder.words(talks[place]) for place in items[0]]
        assert all(torch.equal(word.labels, member.labels) for word, member in zip(words, members, strict=True))
        joined = join(members[0], words[1:], lead_tokens=lengths[0].lead_tokens)
        assert joined is not None, f"{kind}: the conversations do not begin alike"
        assert sum(joined[1]) <= item_tokens(items[0], lengths)
        shared.append((members, joined))
    if not shared:
        raise CantDo("its media need a row each")
    alone = subject.examples[kinds[0]][1]
    separate = [alone, *(member for members, _ in shared for member in members)]
    wanted = gradients(model, [subject.padded([example]) for example in separate], subject.family)
    examples = [alone, *(example for _, (example, _) in shared)]
    segments = [(len(alone.input_ids),), *(segment for _, (_, segment) in shared)]
    batch = collate_packed(examples, subject.family, segments=segments)
    assert_equal(gradients(segmented(model), [batch], subject.family), wanted)
    return ", ".join(kinds)


def learns(subject: Subject) -> str:
    """One full step lowers the loss on its batch, and every part gets a gradient."""
    model, batches = subject.fresh(), subject.batches(subject.mixed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    before = loss_of(model, batches, subject.family)
    before.backward()
    parts = part_of(model)
    moved = {parts[name] for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}
    missing = set(parts.values()) - moved - subject.family.fixed
    assert not missing, f"no gradient in {missing}"
    optimizer.step()
    after = loss_of(model, batches, subject.family)
    assert float(after.detach()) < float(before.detach()), f"{before:.4f} -> {after:.4f}"
    return ""


def parts(subject: Subject) -> str:
    """What a text alone trains is language; what only media reach belongs to a tower or a projector."""
    if "text alone" not in subject.examples:
        raise CantDo("takes no text alone, so the parts can't be told apart by use")
    model = subject.fresh()
    owner = part_of(model)
    _, grads = gradients(model, [subject.padded(subject.examples["text alone"])], subject.family)
    _, reached = gradients(model, subject.batches(subject.mixed), subject.family)
    for name in reached:
        used = name in grads and bool(grads[name].any())
        assert not (used and owner[name] in _TOWERS), f"{name} is called {owner[name]}, but text alone trains it"
        assert name in grads or owner[name] in _TOWERS, f"{name} is called {owner[name]}, but text alone never reaches it"
    return ""


def lora_by_part(subject: Subject) -> str:
    """Adapters in one part at a time: they get gradients, nothing else does."""
    done = []
    for part in ("vision", "projector", "language"):
        model = subject.fresh()
        try:
            tuned, _ = apply_tuning(model, TuningSection(type="lora", parts=[part], rank=2), seed=0)
        except ModelError as error:
            assert part != "language", error
            continue
        loss_of(tuned, subject.batches(subject.mixed), subject.family).backward()
        owner = part_of(tuned)
        trained = [name for name, p in tuned.named_parameters() if p.requires_grad]
        assert trained and all("lora_" in name and owner[name] == part for name in trained)
        assert any(p.grad is not None and bool(p.grad.any()) for p in tuned.parameters()), f"no gradient in the adapters of {part}"
        assert not any(p.grad is not None for p in tuned.parameters() if not p.requires_grad)
        done.append(part)
    return ", ".join(done)


def freeze_by_part(subject: Subject) -> str:
    """With the towers frozen they stay as they are to the bit, at the same loss and without gradients of their own."""
    model, batches = subject.fresh(), subject.batches(subject.mixed)
    present = set(part_of(model).values())
    trained = [part for part in ("language", "embeddings", "head") if part in present]
    wanted = float(loss_of(model, batches, subject.family).detach())
    tuned, _ = apply_tuning(model, TuningSection(type="full", parts=trained, freeze=sorted(_TOWERS & present)), seed=0)
    freeze_towers(tuned)
    before = {name: p.detach().clone() for name, p in tuned.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-3)
    loss = loss_of(tuned, batches, subject.family)
    assert abs(float(loss.detach()) - wanted) <= 1e-5 * abs(wanted)
    loss.backward()
    optimizer.step()
    owner = part_of(tuned)
    for name, p in tuned.named_parameters():
        if owner[name] in _TOWERS:
            assert p.grad is None and torch.equal(p, before[name]), f"{name} moved"
    assert {owner[name] for name, p in tuned.named_parameters() if not torch.equal(p, before[name])} == set(trained)
    return ""


def checkpoints_activations(subject: Subject) -> str:
    """Recomputed activations give the same loss and gradients."""
    model, batches = subject.fresh(), subject.batches(subject.mixed)
    if not checkpointable(model):
        raise CantDo("its blocks can't recompute activations")
    runs = [0]
    for block in checkpointable(model).values():
        inside = next(module for module in block.modules() if not list(module.children()))
        inside.register_forward_pre_hook(lambda module, inputs: runs.__setitem__(0, runs[0] + 1))
    wanted = gradients(model, batches, subject.family)
    once, runs[0] = runs[0], 0
    count = checkpoint_activations(model)
    assert_equal(gradients(model, batches, subject.family), wanted)
    assert runs[0] > once, "no block is run again"
    return f"{count} blocks"


def reloads(subject: Subject) -> str:
    """Saved as Foveate saves it and loaded by the Auto classes: the same encoding, the same logits."""
    batches = subject.batches(subject.mixed)
    model = subject.fresh()
    wanted = logits_of(model, batches)
    with tempfile.TemporaryDirectory() as folder:
        out = export_model(model, subject.processor, Path(folder) / "model", base_id="unused", ranks=Ranks())
        section = ModelSection(id=str(out))
        back, processor = load_model(section), load_processor(section)
    found = logits_of(back, batches)
    assert torch.allclose(found, wanted, atol=1e-5, rtol=1e-5), f"logits are {float((found - wanted).abs().max()):.2e} apart"
    encoder = Encoder(processor, positions=positions_of(back.config))
    for kind in subject.kinds:
        again, first = encoder(subject.about(kind)[0]), subject.examples[kind][0]
        assert torch.equal(again.input_ids, first.input_ids) and torch.equal(again.labels, first.labels), f"{kind}: encodes otherwise"
        assert all(torch.equal(again.media[name], tensor) for name, tensor in first.media.items()), f"{kind}: other media inputs"
    return ""


def generates(subject: Subject) -> str:
    """Greedy answers, the same one by one, in a batch padded on the left, and by plain transformers."""
    scripts = [(kind, script) for kind in subject.kinds for script in ABOUT[:2]]
    asked = [subject.played(script, kind) for kind, script in scripts]
    model, answers, compared = subject.fresh(), {}, 0
    head, decode = model.get_output_embeddings(), subject.processor.tokenizer.decode
    if head is not None:  # random weights would write end marks and white space as soon as words
        blank = [token for token in range(len(head.weight)) if not decode([token], skip_special_tokens=True).strip()]
        head.weight.data[blank] = 0
    for size in (1, len(asked)):
        answers[size] = generate_answers(model, subject.encoder, asked, max_new_tokens=4, batch_size=size, device="cpu")
    assert answers[1] == answers[len(asked)], f"{answers[1]} one by one, {answers[len(asked)]} in a batch"
    for (kind, script), conversation, found in zip(scripts, asked, answers[1], strict=True):
        prompt = subject.encoder.prompt(conversation).input_ids.tolist()
        ids, wanted = plain.answer(
            model, subject.processor, by_hand(subject, kind, script), subject.encoder.end_ids, dict(subject.family.constants)
        )
        if prompt == ids:
            assert found == wanted, f"{kind}: {found!r}, by plain transformers {wanted!r}"
            compared += 1
        else:  # the template has no generation prompt that training text begins with: the training text is cut
            assert prompt == subject.encoder(conversation).input_ids[: len(prompt)].tolist(), f"{kind}: the prompt is not what was trained"
    assert any(answers[1]), "not a word is generated"
    return "" if compared else "prompts cut from training text"


def fsdp_ready(subject: Subject) -> str:
    """Blocks are found, hold most of the weights, and a sharded model has the gradients of the whole one."""
    model = subject.fresh()
    blocks = blocks_of(model)
    inside = [p for block in blocks for p in block.parameters()]
    assert len({id(p) for p in inside}) == len(inside), "blocks share weights"
    owner = part_of(model)
    repeated = [p for name, p in model.named_parameters() if owner[name] == "language"]
    held = {id(p) for p in inside}
    share = sum(p.numel() for p in repeated if id(p) in held) / sum(p.numel() for p in repeated)
    assert share > 0.5, f"the blocks hold {share:.0%} of the language model"
    batches = subject.batches(subject.mixed)
    wanted = gradients(model, batches, subject.family)
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        loss, found = gradients(model, batches, subject.family)
        assert_equal((loss, {bare_name(name): grad.full_tensor() for name, grad in found.items()}), wanted)
    finally:
        dist.destroy_process_group()
    return f"{len(blocks)} blocks"


Column = Callable[[Subject], str]
COLUMNS: dict[str, Column] = {
    "encodes": encodes,
    "labels proven": labels_proven,
    "equals transformers": equals_transformers,
    "collates": collates,
    "packs": packs,
    "shares media": shares_media,
    "learns": learns,
    "parts": parts,
    "LoRA by part": lora_by_part,
    "freeze by part": freeze_by_part,
    "recomputes": checkpoints_activations,
    "reloads": reloads,
    "generates": generates,
    "FSDP-ready": fsdp_ready,
}


def row_of(subject: Subject, names: tuple[str, ...] = ()) -> dict[str, tuple[bool | None, str]]:
    """Column -> (True | None where it can't be done and that is said | False where it failed, what the cell says)."""
    row: dict[str, tuple[bool | None, str]] = {}
    for name in names or COLUMNS:
        torch.manual_seed(0)
        try:
            row[name] = (True, COLUMNS[name](subject))
        except CantDo as reason:
            row[name] = (None, str(reason))
        except AssertionError as error:
            row[name] = (False, str(error).split("\n")[0])
        except DataError as error:
            row[name] = (False, f"the record is refused: {error}")
    return row
