"""The table of modules, and learning rates by part under every way of tuning."""

import io

import pytest
from rich.console import Console

from foveate.config.base import PartName
from foveate.config.model import ModelSection
from foveate.config.optim import OptimSection, PartOptimSection
from foveate.config.tuning import TuningSection
from foveate.errors import ModelError
from foveate.events import ModuleRow
from foveate.model.modules import module_table
from foveate.model.parts import live_parameters, part_of, parts_table, size_of
from foveate.model.tokens import add_tokens, grow
from foveate.model.tuning import apply_tuning
from foveate.report.log import print_modules
from foveate.train.optim import make_optimizer, peak_rates, set_rates
from tests import families

PARTS: tuple[PartName, ...] = ("vision", "projector", "language", "embeddings", "head")
WAYS = {
    "lora": {"parts": ["language", "vision"]},
    "dora": {"parts": ["language"], "dora": True, "also_full": ["projector"]},
    "saved": {"modules_to_save": ["post_layernorm", "text_model.norm"], "targets": ["layers.1.*"]},
    "full": {"type": "full", "parts": ["language", "vision", "embeddings", "head"], "exclude": ["layers.0.*"]},
}


def tuned(family, section, *tokens):
    model, processor = families.build(family)
    new = add_tokens(processor, ModelSection(add_tokens=list(tokens)))
    grow(model, new, seed=0)
    return apply_tuning(model, section, seed=0, new_tokens=new.ids)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["smolvlm", "qwen2_5_vl", "gemma3"])
def test_the_table_adds_up_and_fits_a_screen(family, way):
    settings = {**WAYS[way], "modules_to_save": ["*norm"]} if way == "saved" else WAYS[way]
    section = TuningSection(rank=2, **settings)
    model = tuned(family, section)
    rows = module_table(model, dict.fromkeys(PARTS, 1e-4), section)
    assert len(rows) <= 20
    assert sum(row.parameters for row in rows) == sum(size_of(p) for _, p in live_parameters(model))
    assert sum(row.trained for row in rows) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sum(row.trained for row in rows) == sum(row.trained for row in parts_table(model, {}))
    assert all((row.lr is None) == (row.how == "frozen") == (row.trained == 0) for row in rows)


def test_rows_say_what_is_done_to_them():
    section = TuningSection(rank=2, targets=["layers.1.*"], also_full=["projector"], dora=True)
    rows = {row.pattern: row for row in module_table(tuned("smolvlm", section, "<a>", "<b>"), dict.fromkeys(PARTS, 1e-4), section)}
    assert rows["model.vision_model"].how == "frozen"
    assert rows["model.connector.modality_projection.proj"].how == "full"
    assert rows["model.text_model.embed_tokens"].how == rows["lm_head"].how == "2 new rows"
    adapted = rows["model.text_model.layers.*.self_attn.{q,k,v,o}_proj"]
    assert (adapted.how, adapted.modules, adapted.part) == ("DoRA adapter r=2", 4, "language")


def test_a_long_table_keeps_what_is_trained_and_says_how_much_more_there_is():
    section = TuningSection(rank=2, modules_to_save=["*norm*"], parts=["language", "vision"])
    model = tuned("gemma3", section)
    whole = module_table(model, dict.fromkeys(PARTS, 1e-4), section, most=99)
    short = module_table(model, dict.fromkeys(PARTS, 1e-4), section, most=6)
    assert (len(short), short[-1].pattern) == (6, f"{len(whole) - 5} more names")
    assert sum(row.modules for row in short) == sum(row.modules for row in whole)
    assert sum(row.parameters for row in short) == sum(row.parameters for row in whole)
    assert sum(row.trained for row in short) == sum(row.trained for row in whole)


def test_the_terminal_shows_names_as_they_are():
    row = ModuleRow(pattern="model.layers.*.[x]", part="language", modules=2, parameters=1200, trained=0, how="frozen")
    console = Console(width=80, file=io.StringIO())
    print_modules(console, [row])
    shown = console.file.getvalue()
    assert "model.layers.*.[x]" in shown and "1,200" in shown


@pytest.mark.parametrize("way", WAYS)
def test_rates_by_part_hold_for_every_way_of_tuning(way):
    section = TuningSection(rank=2, **WAYS[way])
    model = tuned("smolvlm", section, *(["<a>"] if way != "full" else []))
    parts = part_of(model)
    trained = {parts[name] for name, p in model.named_parameters() if p.requires_grad}
    rates = {part: 1e-3 * (PARTS.index(part) + 1) for part in trained}
    optim = OptimSection(per_part={part: PartOptimSection(lr=rate) for part, rate in rates.items()}, warmup=0, schedule="constant")
    optimizer = make_optimizer(model, optim)
    set_rates(optimizer, optim, 0, 10)
    names = {parameter: name for name, parameter in model.named_parameters()}
    given = {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert given == {name: rates[parts[name]] for name, p in model.named_parameters() if p.requires_grad}
    for row in module_table(model, peak_rates(optim), section):
        assert row.lr is None or row.lr == rates[row.part]


def test_a_rate_for_a_part_in_which_nothing_is_trained_is_an_error():
    model = tuned("smolvlm", TuningSection(rank=2, modules_to_save=["post_layernorm"]))
    make_optimizer(model, OptimSection(per_part={"vision": PartOptimSection(lr=1e-5)}))
    with pytest.raises(ModelError, match="nothing is trained in 'head'"):
        make_optimizer(model, OptimSection(per_part={"head": PartOptimSection(lr=1e-5)}))
