"""Everything a recipe needs before weights load: processor, encoder, records. Shared by train, eval, check and preview."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from foveate import startup
from foveate.batching.loader import Share, StepSource
from foveate.batching.plan import Plan
from foveate.batching.rows import Lengths, RowPlan, make_plan
from foveate.batching.user import UserCollate
from foveate.config.code import load_function
from foveate.config.recipe import Recipe
from foveate.config.rules import recipe_notes
from foveate.data.mixture import Mixture, build_mixture
from foveate.encode.encoder import Encoder
from foveate.encode.template import set_chat_template
from foveate.errors import ModelError
from foveate.model.attention import Kernel, use_segments
from foveate.model.families import Family, family_of, patch_of, positions_of
from foveate.model.load import load_config, load_processor
from foveate.model.pixels import multiply_patches, take_bytes
from foveate.model.tokens import NewTokens, add_tokens
from foveate.types import Conversation, Encode

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, ProcessorMixin


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A recipe made real, but for the weights."""

    recipe: Recipe
    config: PretrainedConfig
    processor: ProcessorMixin
    family: Family
    encoder: Encoder | None  # None where data.collate makes the batches
    train: Mixture
    eval: Mixture | None
    collate: UserCollate | None
    tokens: NewTokens = NewTokens()

    @property
    def packs(self) -> bool:
        """Whether conversations share rows."""
        return shares_rows(self.recipe, self.family)

    def plan(self, lengths: Lengths | None = None) -> Plan | RowPlan:
        """The order of training; `lengths`, of every slot, are needed where `batch.planned_ahead`."""
        return make_plan(
            self.recipe.batch,
            self.recipe.train,
            records=len(self.train),
            window=self.train.window,
            lengths=lengths,
            packs=self.packs,
            alone=self.family.alone,
        )

    def source(self, plan: Plan | RowPlan, share: Share, *, split: str = "train", encode: Encode | None = None) -> StepSource:
        """The step data of a plan over the training or the held-out records; `encode` takes the encoder's place, see batching/units.py."""
        mixture = self.train if split == "train" else self.eval
        return StepSource(
            mixture=mixture,
            encoder=self.encoder,
            family=self.family,
            plan=plan,
            batch=self.recipe.batch.model_copy(update={"pack": self.packs}),
            share=share,
            split=split,
            collate=self.collate,
            encode=encode,
        )

    def _shares(self) -> list[str]:
        batch, tuning = self.recipe.batch, self.recipe.tuning
        if not batch.share_media:
            return []
        drawn = "; what dropout takes from them, it takes from all" if tuning.type == "lora" and tuning.dropout else ""
        return [f"samples of a step about the same media share them, and what stands before them{drawn}"]

    def notes(self) -> tuple[str, ...]:
        """What was decided for the user, and why."""
        found = [f"train: {line}" for line in self.train.describe()]
        found += [f"eval: {line}" for line in self.eval.describe()] if self.eval else []
        if not self.recipe.batch.pack:
            found.append("samples are padded: batch.pack is false")
        elif self.collate is not None:
            found.append("samples are padded: data.collate makes the batches")
        elif not self.family.packs:
            found.append(f"samples are padded, not packed: {self.config.model_type}: {self.family.why_padded}")
        elif not self.packs:
            found.append(f"samples are padded: model.attention is {self.recipe.model.attention}, which can't keep packed samples apart")
        else:
            found.append(f"samples are packed into rows of up to {self.recipe.batch.max_tokens} tokens; attention stays within each sample")
            found += self._shares()
        return (*found, *self.tokens.notes, *(self.encoder.notes if self.encoder else ()), *recipe_notes(self.recipe))


def prepare(recipe: Recipe, *, allow_code: bool) -> Prepared:
    """Load processor and data of a recipe. Raises FoveateError for whatever is missing or not allowed."""
    functions = user_functions(recipe, allow_code=allow_code)
    train, held_out = (open_records(recipe, split, functions) for split in ("train", "eval"))
    config, processor, encoder, tokens = load_encoder(recipe)
    collate = functions.get(recipe.data.collate or "")
    return Prepared(
        recipe=recipe,
        config=config,
        processor=processor,
        family=family_of(config),
        encoder=encoder,
        train=train,
        eval=held_out,
        collate=None if collate is None else BoundCollate(collate, processor),
        tokens=tokens,
    )


def open_records(recipe: Recipe, split: Literal["train", "eval"], functions: Mapping[str, Callable[..., Any]]) -> Mixture | None:
    """The records of a split; None where the recipe has none. Raises DataError."""
    sections = recipe.data.train if split == "train" else recipe.data.eval
    return build_mixture(sections, functions=functions, offline=recipe.model.offline, rules=recipe.media) if sections else None


def load_encoder(recipe: Recipe) -> tuple[PretrainedConfig, ProcessorMixin, Encoder | None, NewTokens]:
    """Configuration, processor, encoder and the tokens that were added.

    With a collate function of the user's the processor may be of any kind and there is no encoder.

    Raises ModelError, or TemplateError for a chat template that can't be used.
    """
    config = load_config(recipe.model)
    processor = load_processor(recipe.model, multimodal=recipe.data.collate is None)
    startup.done()
    tokens = add_tokens(processor, recipe.model)
    if recipe.data.collate is not None:
        if recipe.data.eval and set(recipe.evaluate.metrics) - {"loss"}:
            raise ModelError("answers can't be generated with data.collate", where="evaluate.metrics", fix="use `metrics: [loss]`")
        if recipe.model.template_options:
            fix = "remove it, and give the variables to the template in your function"
            raise ModelError("has no effect: data.collate renders the template", where="model.template_options", fix=fix)
        return config, processor, None, tokens
    set_chat_template(processor, recipe.model.chat_template)
    family = family_of(config)
    encoder = Encoder(
        processor,
        positions=positions_of(config),
        rules=recipe.media,
        lean=family.byte_tower is not None,
        options=recipe.model.template_options,
        one_answer=family.decoder_start is not None,
        patch=patch_of(config),
    )
    return config, processor, encoder, tokens


def suit(model: nn.Module, *, packs: bool, family: Family, encoder: Encoder | None, kernel: Kernel = "segments") -> None:
    """Make a model take the batches of this recipe: rows of several conversations, pixels as bytes, patches one by one."""
    multiply_patches(model)
    if packs:
        use_segments(model, kernel)
    form = encoder.pixel_form if encoder is not None else None
    if form is not None:
        take_bytes(model, family.byte_tower, width=form.width, widen=form.widen)


def shares_rows(recipe: Recipe, family: Family) -> bool:
    """Whether conversations share rows."""
    by_segments = recipe.model.attention not in ("sdpa", "eager")
    return recipe.batch.pack and family.packs and by_segments and recipe.data.collate is None


def user_functions(recipe: Recipe, *, allow_code: bool) -> dict[str, Callable[..., Any]]:
    """Every function of the user's that the recipe names, by its spec. Raises FoveateError for one that is not allowed."""
    specs = [source.adapter for source in (*recipe.data.train, *recipe.data.eval)] + [recipe.data.collate]
    return {spec: load_function(spec, allow_code=allow_code) for spec in dict.fromkeys(specs) if spec is not None}


class BoundCollate:
    """A user's collate function with the processor that it is given; picklable where both are."""

    def __init__(self, function: Callable[..., Any], processor: ProcessorMixin) -> None:
        self._function, self._processor = function, processor

    def __call__(self, conversations: Sequence[Conversation]) -> dict[str, Tensor]:
        """Model inputs with labels, [B, T] each."""
        return self._function(list(conversations), self._processor)
