"""The comparisons, each with its targets. A function runs one and says what it found."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.book import Claim, Part
from benchmarks.peers.jobs import Job
from benchmarks.peers.measure import run
from benchmarks.peers.ratios import Ratio, best, loss_gap, ratio
from benchmarks.peers.rounds import Runs, Setting, compare, table

ORDER = ("trl", "llamafactory", "swift", "automodel", "plain")
MOST_GAP = 1e-4
UNSHARED = {"batch.share_media": False}
LEAN = "Foveate, recomputing selectively"


def long_tail(setting: Setting) -> Part:
    """Log-normal lengths: useful tokens a CPU second, memory, losses."""
    grouped, packed = ("plain", "trl", "llamafactory", "swift"), ("swift", "automodel")
    runs = compare(_all(setting, "long_tail", grouped=grouped, packed=packed), ours="Foveate, packed", repeats=setting.repeats)
    claims = [_fastest(runs, "useful tokens / CPU s, long-tailed lengths", 2.5), *_same_batches(runs, "long-tailed lengths", 2.5)]
    claims += [_memory(runs, "long-tailed lengths"), _losses(runs, "long-tailed lengths")]
    return Part(name="long_tail", claims=tuple(claims), text=table(runs))


def uniform(setting: Setting) -> Part:
    """Texts of like length: nothing to gain by packing or sharing."""
    jobs = _all(setting, "uniform", grouped=("plain",), packed=())
    lean = {"train.gradient_checkpointing": "selective"}
    jobs[LEAN] = setting.job("foveate", model="qwen2_5_vl", mix="uniform", style="packed", extra=lean)
    runs = compare(jobs, ours="Foveate, packed", repeats=setting.repeats)
    claims = [_fastest(runs, "useful tokens / CPU s, uniform lengths", 1.1), _memory(runs, "uniform lengths")]
    claims += [_memory(runs, "uniform lengths, cheap operations recomputed", ours=LEAN)]
    claims += [_start(runs), _losses(runs, "uniform lengths")]
    return Part(name="uniform", claims=tuple(claims), text=table(runs))


def vqa(setting: Setting) -> Part:
    """5.4 questions an image: in the file's order, where those about an image are neighbours, and regrouped from a shuffled file."""
    jobs = {"Foveate, packed": _ours(setting, "vqa"), "Foveate, unshared": _ours(setting, "vqa", UNSHARED)}
    jobs["Foveate, regrouped"] = _ours(setting, "vqa", _apart(setting, "vqa"))
    jobs |= {job.label: job for job in (setting.job(name, model="qwen2_5_vl", mix="vqa", size=16) for name in ORDER)}
    runs = compare(jobs, ours="Foveate, packed", repeats=setting.repeats)
    what, regrouped = "samples / CPU s, 5.4 questions an image", "the same, regrouped from a shuffled file, against unshared packing"
    claims = [
        _against(runs, "Foveate, packed", "Foveate, unshared", f"{what}, shared against unshared packing", 2.0),
        _fastest(runs, what, 4.0, of="samples_per_cpu_s"),
        _against(runs, "Foveate, regrouped", "Foveate, unshared", regrouped, 2.0),
        _losses(runs, "5.4 questions an image"),
    ]
    return Part(name="vqa", claims=tuple(claims), text=table(runs))


def sharing(setting: Setting) -> Part:
    """15 and 4 questions an image, against our own unshared packing."""
    claims, texts = [], []
    for mix, questions in (("gqa", 15), ("docvqa", 4)):
        jobs = {"Foveate, packed": _ours(setting, mix), "Foveate, unshared": _ours(setting, mix, UNSHARED)}
        runs = compare(jobs, ours="Foveate, packed", repeats=setting.repeats)
        what = f"samples / CPU s, {questions} questions an image, shared against unshared packing"
        claims += [_against(runs, "Foveate, packed", "Foveate, unshared", what, 2.0), _losses(runs, f"{questions} questions an image")]
        texts.append(f"{questions} questions an image\n\n{table(runs)}")
    return Part(name="sharing", claims=tuple(claims), text="\n\n".join(texts))


def checkpointing(setting: Setting) -> Part:
    """LoRA on the language model with activations recomputed, images that fill the tower: a frozen tower costs one forward."""
    options = dict(model="qwen2_5_vl", mix="tower", lora=True, checkpointing=True)
    jobs = {"Foveate, packed": setting.job("foveate", style="packed", **options)}
    jobs |= {job.label: job for job in (setting.job(name, **options) for name in ("plain", "trl", "swift"))}
    runs = compare(jobs, ours="Foveate, packed", repeats=setting.repeats)
    what = "LoRA, activations recomputed, frozen tower: useful tokens / CPU s"
    return Part(name="checkpointing", claims=(_against(runs, "Foveate, packed", "transformers + peft", what, 1.5),), text=table(runs))


def cached_features(setting: Setting) -> Part:
    """A frozen tower's features kept: CPU seconds of a step in the second epoch and in the first, and the same without a cache."""
    what, target = "cached features, tower-heavy, second epoch against the first", 1.8
    each: dict[str, list[float]] = {"memory": [], "off": []}
    for _ in range(setting.repeats):
        for kind, seen in each.items():
            extra = {"media.cache_features": kind, "train.epochs": 2}
            result = run(setting.job("foveate", model="smolvlm", mix="tower", style="packed", lora=True, extra=extra))
            if result.failure:
                return Part(name="cached_features", claims=(_unmeasured(what, f"≥{target}x", result.failure),), failure=result.failure)
            seen.append(_epochs(result.step_cpu))
    kept, without = (ratio(each[kind], [1.0] * setting.repeats) for kind in ("memory", "off"))
    claim = Claim(measure=what, target=f"≥{target}x", seen=str(kept), met=kept.median >= target)
    return Part(name="cached_features", claims=(claim,), text=f"Second epoch against the first without a cache: {without}.")


PARTS: dict[str, Callable[[Setting], Part]] = {
    "long_tail": long_tail,
    "uniform": uniform,
    "vqa": vqa,
    "sharing": sharing,
    "checkpointing": checkpointing,
    "cached_features": cached_features,
}


def _all(setting: Setting, mix: str, *, grouped: tuple[str, ...], packed: tuple[str, ...]) -> dict[str, Job]:
    styles = [("foveate", "packed"), *((name, "order") for name in ORDER), *((name, "grouped") for name in grouped)]
    styles += [(name, "packed") for name in packed]
    jobs = (setting.job(name, model="qwen2_5_vl", mix=mix, style=style) for name, style in styles)
    return {job.label: job for job in jobs}


def _ours(setting: Setting, mix: str, extra: dict | None = None) -> Job:
    return setting.job("foveate", model="qwen2_5_vl", mix=mix, style="packed", size=16, extra=extra or {})


def _apart(setting: Setting, mix: str) -> dict:
    return {"batch.share_media": "regroup", "data.train": [{"path": str(setting.data(mix) / "apart.jsonl")}]}


def _epochs(ends: tuple[float, ...]) -> float:
    """CPU seconds of the first epoch's steps over those of the second's; each epoch's own first step, which warms up, is left out."""
    half = len(ends) // 2
    return (ends[half - 1] - ends[0]) / (ends[-1] - ends[half])


def _fastest(runs: Runs, measure: str, target: float, *, of: str = "tokens_per_cpu_s") -> Claim:
    rates = runs.rates(of=of)
    if not rates or not runs.timed.get(runs.ours):
        return _unmeasured(measure, f"≥{target}x", _reasons(runs))
    peer = best(rates)
    return _at_least(f"{measure}, against the best peer", ratio(runs.figures(runs.ours, of), rates[peer]), target, peer)


def _same_batches(runs: Runs, measure: str, target: float) -> list[Claim]:
    """Against the best of those that train on the same batches: grouping like lengths, and the peers' packing, change what a step is made
    of."""
    rates = {label: seen for label, seen in runs.rates().items() if "grouped" not in label and not _packs(label)}
    if not rates or not runs.timed.get(runs.ours):
        return []
    peer = best(rates)
    what = f"the same, {measure}, against the best peer on the same batches"
    return [_at_least(what, ratio(runs.figures(runs.ours), rates[peer]), target, peer)]


def _against(runs: Runs, ours: str, theirs: str, measure: str, target: float) -> Claim:
    own, other = runs.figures(ours, "cpu_s"), runs.figures(theirs, "cpu_s")
    if not own or not other:
        return _unmeasured(measure, f"≥{target}x", _reasons(runs))
    return _at_least(measure, ratio(other, own), target, theirs)  # the same samples: seconds, the other way round


def _memory(runs: Runs, measure: str, *, ours: str = "Foveate, packed") -> Claim:
    """Peak live tensor bytes over the counted steps, against the leanest peer on the same batches."""
    what, target = f"peak memory at equal work, {measure}, against the leanest peer", "≤0.8x"
    peers = {label: result.peak_bytes for label, result in runs.counted.items() if label in runs.timed and not label.startswith("Foveate")}
    if not peers or ours not in runs.counted:
        return _unmeasured(what, target, _reasons(runs))
    peer = min(peers, key=lambda label: peers[label])
    share = runs.counted[ours].peak_bytes / peers[peer]
    return Claim(measure=what, target=target, seen=f"{share:.2f}x ({peer}; tensors)", met=share <= 0.8)


def _start(runs: Runs) -> Claim:
    what, target = "launch to the end of the first step, against TRL", "≤0.6x"
    own, other = runs.figures(runs.ours, "first_step_s"), runs.figures("TRL", "first_step_s")
    if not own or not other:
        return _unmeasured(what, target, _reasons(runs))
    found = ratio(own, other)
    return Claim(measure=what, target=target, seen=str(found), met=found.median <= 0.6)


def _losses(runs: Runs, measure: str) -> Claim:
    """The largest difference at any step, over all that trained on the same batches in the same order."""
    what, target = f"losses on the same batches, {measure}", f"equal within {MOST_GAP:g}"
    same = [label for label in runs.timed if label != runs.ours and "grouped" not in label and not _packs(label)]
    if not same or not runs.timed.get(runs.ours):
        return _unmeasured(what, target, _reasons(runs))
    ours = runs.timed[runs.ours][0].losses
    gaps = {label: loss_gap(ours, runs.timed[label][0].losses) for label in same}
    worst = max(gaps, key=lambda label: gaps[label])
    seen = f"{gaps[worst]:.1e} at most over {len(ours)} steps of {len(gaps)} others ({worst})"
    return Claim(measure=what, target=target, seen=seen, met=gaps[worst] <= MOST_GAP)


def _packs(label: str) -> bool:
    return label.endswith(", packed") or label.endswith(", regrouped")


def _at_least(measure: str, found: Ratio, target: float, peer: str) -> Claim:
    return Claim(measure=measure, target=f"≥{target}x", seen=f"{found} [{peer}]", met=found.median >= target)


def _unmeasured(measure: str, target: str, reason: str) -> Claim:
    return Claim(measure=measure, target=target, seen=reason or "no run", met=None)


def _reasons(runs: Runs) -> str:
    return "; ".join(f"{label}: {reason}" for label, reason in runs.failures.items())
