"""Rules across fields and sections; round trips; the schema."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from foveate.config.load import dump_recipe, load_recipe, recipe_schema
from foveate.config.rules import recipe_notes
from tests.unit.config.recipes import DATA, load, problems

SHA = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tuning: {freeze: [language]}", "tuning.freeze: language stands in tuning.parts too; keep one of the two"),
        ("tuning: {also_full: [vision], freeze: [vision]}", "tuning.freeze: vision stands in tuning.also_full too; keep one of the two"),
        (
            "tuning: {also_full: [language]}",
            "tuning.also_full: language stands in tuning.parts too: it is trained with adapters or in full, not both; keep one of the two",
        ),
        ("tuning: {parts: []}", "tuning.parts: is empty, so nothing would be trained; name a part, e.g. [language]"),
        ("tuning: {parts: [head, head]}", "tuning.parts: names head twice; name it once"),
        ("tuning: {type: full, also_full: [head]}", "tuning.also_full: has no effect with type full; name those parts in tuning.parts"),
        (
            "tuning: {targets: []}",
            "tuning.targets: is empty, so no layer gets adapters; remove it to adapt all linear layers of tuning.parts",
        ),
        ("tuning: {type: full, targets: []}", "tuning.targets: is empty, so nothing is trained; remove it to train all of tuning.parts"),
        (
            "tuning: {targets: {vision: [fc1]}}",
            "tuning.targets.vision: has no effect: vision is not in tuning.parts; remove it, or name the part there",
        ),
        ("tuning: {type: full, dora: true}", "tuning.dora: has no effect with type full; remove it, or set type: lora"),
        ("tuning: {type: full, rslora: true}", "tuning.rslora: has no effect with type full; remove it, or set type: lora"),
        (
            "tuning: {type: full, modules_to_save: [norm]}",
            "tuning.modules_to_save: has no effect with type full; name them in tuning.targets",
        ),
        ("tuning: {exclude: [a, a]}", "tuning.exclude: names a twice; name it once"),
        (
            "model: {id: a/b, trust_remote_code: true, revision: main}",
            "model.trust_remote_code: needs model.revision to be a full commit (40 hexadecimal digits), since a branch or tag may change; "
            "look at that commit's code, then name it",
        ),
        ("model: {revision: main}", "model.revision: has no effect: foveate:tiny is not on the hub; remove it"),
        ("model: {min_pixels: 9, max_pixels: 4}", "model.min_pixels: is 9, above model.max_pixels (4)"),
        ("model: {processor: {max_pixels: 4}}", "model.processor.max_pixels: has a field of its own; write model.max_pixels instead"),
        ("batch: {size: 4, micro_size: 8}", "batch.micro_size: is 8, above batch.size (4); make it at most batch.size"),
        (
            "optim: {per_part: {vision: {lr: 1}}}",
            "optim.per_part.vision: has no effect: vision is not trained (trained: language); "
            "remove it, or name the part in tuning.parts or tuning.also_full",
        ),
        ("optim: {betas: [0.9, 1]}", "optim.betas: are [0.9, 1.0], but each must be at least 0 and below 1"),
        ("optim: {warmup: 1.5}", "optim.warmup: is 1.5: from 1 on it counts steps, so it must be whole"),
        ("optim: {warmup: 0, warmup_start: 0.1}", "optim.warmup_start: has no effect: there is no warm-up; remove it, or set warmup"),
        ("evaluate: {metrics: [wer]}", "evaluate.metrics: needs held-out data, but data.eval is empty; add held-out data under data.eval"),
        ("train: {eval_every: 5}", "train.eval_every: needs held-out data, but data.eval is empty; add held-out data under data.eval"),
        ("train: {best: loss}", "train.best: needs held-out data, but data.eval is empty; add held-out data under data.eval"),
        ("log: [wandb, wandb]", "log: names wandb twice; name it once"),
    ],
)
def test_a_broken_rule_stands_at_its_line(tmp_path: Path, line: str, expected: str):
    assert problems(tmp_path, DATA + line + "\n") == [f"recipe.yaml:2: {expected}"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["model: {quantize: {}}", "tuning: {type: full}"],
            "recipe.yaml:2: model.quantize: needs tuning.type lora: quantised weights can't be trained themselves; "
            "remove it, or set type: lora",
        ),
        (
            ["model: {quantize: {parts: [projector, language]}}", "tuning: {also_full: [projector]}"],
            "recipe.yaml:3: tuning.also_full: projector stands in model.quantize.parts too: quantised weights can't be trained themselves; "
            "keep one of the two",
        ),
        (
            ["model: {quantize: {backend: torchao}}"],
            "recipe.yaml:2: model.quantize.bits: is 4, but over torchao's weights adapters need 8; set backend: bitsandbytes, or bits: 8",
        ),
        (
            ["model: {quantize: {bits: 8, type: fp4}}"],
            "recipe.yaml:2: model.quantize.type: has no effect with 8 bits; remove it",
        ),
        (
            ["model: {quantize: {parts: []}}"],
            "recipe.yaml:2: model.quantize.parts: is empty, so nothing is quantised; name a part, e.g. [language]",
        ),
        (
            ["model: {quantize: {}}", "parallel: {strategy: fsdp2}"],
            "recipe.yaml:3: parallel.strategy: quantised weights can't be sharded; "
            "set strategy: ddp, which keeps a whole copy on every process, or drop model.quantize",
        ),
        (
            ["model: {add_tokens: ['<a>']}", "tuning: {type: full}"],
            "recipe.yaml:2: model.add_tokens: needs trained embeddings: the rows of new tokens start at the mean of the others; "
            "add embeddings to tuning.parts (and head, where the model's is not tied), or set type: lora, which trains the new rows alone",
        ),
        (
            ["model: {add_special_tokens: ['<a>']}", "tuning: {freeze: [embeddings]}"],
            "recipe.yaml:2: model.add_special_tokens: has no effect on new tokens unless embeddings may be trained, and tuning.freeze "
            "forbids it; take embeddings out of tuning.freeze",
        ),
        (
            ["model: {add_tokens: ['<a>'], add_special_tokens: ['<a>']}"],
            "recipe.yaml:2: model.add_special_tokens: <a> stands in add_tokens too; keep one of the two",
        ),
        (
            ["model: {add_tokens: [' a']}"],
            "recipe.yaml:2: model.add_tokens.0: is ' a': a token is not empty, and neither begins nor ends with a space; "
            "write it without them",
        ),
        (
            ["model: {add_tokens: ['<a>'], quantize: {parts: [head]}}"],
            "recipe.yaml:2: model.quantize.parts: a quantised head can't take the rows of new tokens; "
            "take head out of it, or remove the new tokens",
        ),
    ],
)
def test_quantised_weights_and_new_tokens_have_rules(tmp_path: Path, lines: list[str], expected: str):
    assert problems(tmp_path, DATA + "\n".join(lines) + "\n") == [expected]


def test_rates_by_part_wait_for_the_model_where_names_decide(tmp_path: Path):
    load(tmp_path, DATA + "tuning: {modules_to_save: [norm]}\noptim: {per_part: {vision: {lr: 1e-5}}}\n")
    load(tmp_path, DATA + "model: {add_tokens: ['<a>']}\noptim: {per_part: {embeddings: {lr: 1e-5}}}\n")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{split: train}", "data.train.0: names no data; give one of path, hub and use"),
        ("{path: a, hub: b/c}", "data.train.0: has both path and hub; keep the one that the records come from"),
        ("{path: a, revision: x}", "data.train.0.revision: has no effect on local files; remove it, or name a hub data set with hub"),
        (
            "{path: a, columns: {pictures: b}}",
            "data.train.0.columns.pictures: unknown role; roles: image, audio, video, question, answer, answers, messages, ",
        ),
        ("{path: a, columns: {imgae: b}}", "data.train.0.columns.imgae: unknown role; did you mean image?"),
        (
            "{path: a, adapter: nothing}",
            "data.train.0.adapter: 'nothing' does not name a function; write file.py:function or package.module:function",
        ),
        (
            "{path: a, adapter: a.py:f, format: qa}",
            "data.train.0.format: has no effect: the adapter makes the conversation; keep one of the two",
        ),
        ("{path: a, weight: 2, count: 9}", "data.train.0.count: has no place beside weight; keep one of the two"),
        (
            "{hub: a/b, shuffle_buffer: 9}",
            "data.train.0.shuffle_buffer: has no effect without streaming; remove it: all records are shuffled",
        ),
        (
            "{path: a, streaming: true}",
            "data.train.0.streaming: has no effect on local files; remove it: they are read as needed anyway",
        ),
        (
            "{hub: a/b, streaming: true, shuffle_buffer: 8}",
            "data.train.0.shuffle_buffer: is 8, below batch.size (16); make it several times batch.size",
        ),
        (
            "{hub: a/b, streaming: true, count: 8}",
            "data.train.0.count: can't be had of a stream; remove it, or `streaming`",
        ),
    ],
)
def test_a_source_says_one_thing(tmp_path: Path, source: str, expected: str):
    (line,) = problems(tmp_path, f"data:\n  train:\n    - {source}\n")
    assert line.startswith(f"recipe.yaml:3: {expected}")


def test_a_stream_is_the_only_training_source_and_never_held_out(tmp_path: Path):
    text = "data: {train: [{hub: a/b, streaming: true}, {hub: c/d}], eval: [{hub: a/b, streaming: true}]}\n"
    lines = problems(tmp_path, text)
    assert [line.split(": ")[1] for line in lines] == ["data.train.0.streaming", "data.eval.0.streaming"]
    assert "only source of its split" in lines[0] and "read again and again" in lines[1]


@pytest.mark.parametrize("value", ["0", "25", "1%", "0.5%", "100%"])
def test_max_bad_is_a_count_or_a_share(tmp_path: Path, value: str):
    assert str(load(tmp_path, f"data: {{train: [{{use: medpix}}], max_bad: {value}}}\n").data.max_bad) == value


@pytest.mark.parametrize("value", ["-1", "101%", "few", "1 %", "''"])
def test_any_other_max_bad_is_refused(tmp_path: Path, value: str):
    (line,) = problems(tmp_path, f"data: {{train: [{{use: medpix}}], max_bad: {value}}}\n")
    assert "but should be a count (0 or more) or a share such as '1%'" in line


def test_a_rule_is_not_reported_on_top_of_the_mistake_that_breaks_it(tmp_path: Path):
    text = "data: {train: [{use: medpix}], eval: [{use: medpix, splt: x}]}\nevaluate: {metrics: [wre]}\ntrain: {best: wer}\n"
    assert [line.split(": ")[1] for line in problems(tmp_path, text)] == ["data.eval.0.splt", "evaluate.metrics.0"]


def test_what_is_allowed(tmp_path: Path):
    text = "data: {train: [{use: medpix, path: a}, {use: cord_v2, hub: b/c}], eval: [{use: medpix}]}\n"
    load(tmp_path, text + "train: {best: wer}\nevaluate: {metrics: [wer]}\n")
    load(tmp_path, text + f"model: {{id: a/b, trust_remote_code: true, revision: {SHA}}}\n")
    load(tmp_path, text + "tuning: {also_full: [projector], freeze: [vision]}\noptim: {per_part: {projector: {lr: 0}}, warmup: 100}\n")


def test_what_a_later_word_makes_void_is_noted(tmp_path: Path):
    text = "data: {train: [{use: medpix}], collate: a.py:f}\ntuning: {type: full, rank: 4}\ntrain: {steps: 3, epochs: 2}\n"
    assert recipe_notes(load(tmp_path, text)) == (
        "batch.pack: batches of your own data.collate function are never packed",
        "train.epochs (2) has no effect: train.steps (3) takes its place",
        "tuning.rank: no effect with tuning.type full",
    )
    assert recipe_notes(load(tmp_path, DATA)) == ()


def strings(seed: int) -> list[str]:
    """Texts that trip careless writers of YAML, and random ones."""
    rng = random.Random(seed)
    hard = [
        "no",
        "1e-5",
        "~",
        "",
        " a ",
        "a: b",
        "- a",
        "#x",
        "${HOME}",
        "$${A}",
        "$$${A}",
        "a\nb\n\tc",
        "'\"\\",
        "\x7f\x85\u2028\ufeff",
        "0x1F",
        "<<",
    ]
    hard += [
        "{{ m }}{% if x %}",
        "größer 😀",
        "*a",
        "&a",
        "!t",
        "---",
        "%",
        "@",
        "`",
        "null",
        "true",
        "12:30:45",
        "a" * 500,
        "/a b/c.py:f",
        ".",
    ]
    alphabet = "ab1 .:-#{}[]$'\"\\\n\t,&*!|>%@é\x01😀"
    return hard + ["".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(200)]


def test_a_dumped_recipe_loads_back_equal(tmp_path: Path):
    for number, (text, other) in enumerate(itertools.pairwise(strings(0))):
        recipe = load(tmp_path, DATA + "tuning: {targets: [a]}\noptim: {max_grad_norm: null, betas: [0.9, 0.95], eps: 1e-08}\n")
        data = recipe.data.model_copy(
            update={"train": [recipe.data.train[0].model_copy(update={"prompt": text, "columns": {"question": other, "answer": text}})]}
        )
        tuning = recipe.tuning.model_copy(update={"targets": list(dict.fromkeys([text, other])), "alpha": number / 7 + 1e-9})
        model = recipe.model.model_copy(update={"processor": {text: [other, {other: text}, 1, -2.5e-30, None, True, {}, []], "n": {}}})
        recipe = recipe.model_copy(update={"data": data, "tuning": tuning, "model": model})
        saved = tmp_path / "saved.yaml"
        saved.write_text(dump_recipe(recipe), "utf-8", newline="")
        assert load_recipe(saved, env={}) == recipe, (text, other)


def test_dumped_paths_no_longer_depend_on_the_folder(tmp_path: Path):
    recipe = load(tmp_path, "data: {train: [{path: a.jsonl, adapter: b.py:f}]}\ntrain: {output: out}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert load(elsewhere, dump_recipe(recipe)) == recipe


def test_the_schema_is_for_editors():
    schema = recipe_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["required"] == ["data"]
    source = schema["$defs"]["SourceSection"]
    assert source["additionalProperties"] is False
    assert source["properties"]["weight"]["exclusiveMinimum"] == 0
    assert all("description" in field for name in schema["$defs"] for field in schema["$defs"][name]["properties"].values())
    assert "foveate_path" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("media", "path", "text"),
    [
        ("fetch: [https://example.org]", "media.fetch.0", "is no domain; write hosts"),
        ("fetch: [a.org, '*']", "media.fetch.1", "no domain"), ("fetch: [a.org, a.org]", "media.fetch", "twice"),
        ("fetch_max_mb: 3.0", "media.fetch_max_mb", "has no effect: nothing is fetched"),
    ],
)  # fmt: skip
def test_what_is_fetched_is_named_by_domain(tmp_path: Path, media: str, path: str, text: str):
    (line,) = problems(tmp_path, f"{DATA}media: {{{media}}}\n")
    assert path in line and text in line
    fine = load(tmp_path, DATA + "media: {fetch: ['*.example.org', 'images.example.org:8443'], fetch_timeout_s: 3.0}\n")
    assert fine.media.fetch == ["*.example.org", "images.example.org:8443"]


@pytest.mark.parametrize(("media", "path"), [("cache_gb: 3.0", "cache_gb"), ("cache_features: memory, cache_folder: kept", "cache_folder")])
def test_settings_of_a_cache_that_is_not_there_are_refused(tmp_path: Path, media: str, path: str):
    (line,) = problems(tmp_path, f"{DATA}media: {{{media}}}\n")
    assert f"media.{path}" in line and "has no effect: media.cache_features is" in line
    assert load(tmp_path, DATA + "media: {cache_features: disk, cache_gb: 3.0, cache_folder: kept}\n").media.cache_gb == 3.0
    assert load(tmp_path, DATA + "media: {cache_decoded: disk, cache_gb: 3.0, cache_folder: kept}\n").media.cache_gb == 3.0


def test_decoded_media_are_not_kept_for_a_collate_function_and_a_note_says_so(tmp_path: Path):
    recipe = load(tmp_path, "data: {train: [{path: a.jsonl}], collate: 'f.py:f'}\nmedia: {cache_decoded: disk}\n")
    assert "media.cache_decoded has no effect: data.collate opens the media" in recipe_notes(recipe)


ROWS = [
    ("batch: {size: 4, rows: 2}", "batch.size: has no place beside batch.rows"),
    ("batch: {rows: 0}", "batch.rows: is 0, but must be greater than 0"),
]


@pytest.mark.parametrize(("batch", "said"), ROWS)
def test_a_step_is_conversations_or_rows(tmp_path, batch, said):
    assert any(said in line for line in problems(tmp_path, f"data: {{train: [{{path: a.jsonl}}]}}\n{batch}\n"))


def test_rows_need_lengths(tmp_path):
    stream = "data: {train: [{hub: a/b, streaming: true}]}\nbatch: {rows: 2}\n"
    assert any("batch.rows: needs the lengths of all records, which a stream does not tell" in line for line in problems(tmp_path, stream))
    mine = "data: {train: [{path: a.jsonl}], collate: 'mine.py:collate'}\nbatch: {rows: 2, max_patches: 9}\n"
    found = problems(tmp_path, mine)
    assert sum("needs the lengths of the records" in line for line in found) == 2
