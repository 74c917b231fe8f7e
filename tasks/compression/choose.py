"""Which candidate is deployed: the fastest of those within the budget."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.compression.candidates import Candidate
from tasks.errors import CompressionError
from tasks.schema import Budget

MEGABYTE = 1_000_000
_TIE = 1.03  # latencies this close are one: measuring again would order them otherwise


@dataclass(frozen=True)
class Miss:
    """A limit of the budget that a candidate misses, and by what share of the limit."""

    key: str
    text: str
    share: float


def choose(candidates: Sequence[Candidate], budget: Budget) -> list[Candidate]:
    """The candidates with their verdicts; exactly one is "chosen".

    Eligible is what meets the budget and is not slower than fp32 or, if int8, than its own float
    parent. The lowest latency wins; among latencies within 3 % the better accuracy, then the
    smaller file. When none is eligible `budget.otherwise` decides: the fastest fp32 export, or
    CompressionError; either names the nearest candidate.
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    fp32 = candidates[0]
    judged = [_judge(candidate, by_name, fp32, budget) for candidate in candidates]
    eligible = [candidate for candidate in judged if candidate.verdict == "eligible"]
    if not eligible:
        nearest = _nothing_fits(judged, fp32, budget)
        if budget.otherwise == "fp32":
            sound = {c.name for c in candidates if c.verdict != "rejected" and c.file == fp32.file}
            return _fall_back(judged, sound, nearest)
        raise CompressionError(
            f"{nearest}. Relax the limit in conf/params.yaml, give compress a smaller student or "
            "higher prune.ratios, or deploy the fp32 export with budget.otherwise: fp32"
        )
    fastest = min(candidate.latency_ms for candidate in eligible)
    tied = [candidate for candidate in eligible if candidate.latency_ms <= fastest * _TIE]
    best = max(tied, key=lambda c: (c.accuracy, -c.size_bytes, -c.latency_ms))
    return [_final(candidate, best, len(tied)) for candidate in judged]


def misses(candidate: Candidate, fp32: Candidate, budget: Budget) -> list[Miss]:
    """The limits of the budget that a candidate does not keep."""
    found = []
    drop, allowed = fp32.accuracy - candidate.accuracy, budget.max_accuracy_drop
    if drop > allowed + 1e-9:
        text = f"accuracy drop {drop:.4f} exceeds budget.max_accuracy_drop {allowed:g}"
        found.append(Miss("max_accuracy_drop", text, drop - allowed))
    if candidate.agreement < budget.min_agreement - 1e-9:
        least = budget.min_agreement
        text = (
            f"agreement {candidate.agreement:.4f} with fp32 is below budget.min_agreement {least:g}"
        )
        found.append(Miss("min_agreement", text, least - candidate.agreement))
    measured = (
        ("latency", candidate.latency_ms, "ms", "max_latency_ms"),
        ("size", candidate.size_bytes / MEGABYTE, "MB", "max_size_mb"),
        ("memory", candidate.memory_bytes / MEGABYTE, "MB", "max_memory_mb"),
    )
    for name, value, unit, key in measured:
        limit: float | None = getattr(budget, key)
        if limit is not None and value > limit:
            text = f"{name} {value:.3g} {unit} exceeds budget.{key} {limit:g}"
            found.append(Miss(key, text, value / limit - 1))
    return found


def pareto_front(candidates: Sequence[Candidate]) -> set[str]:
    """Names of those that no other beats in accuracy, latency and size at once."""
    return {
        candidate.name
        for candidate in candidates
        if not any(_dominates(other, candidate) for other in candidates)
    }


def _judge(
    candidate: Candidate, by_name: dict[str, Candidate], fp32: Candidate, budget: Budget
) -> Candidate:
    if candidate.verdict == "rejected":
        return candidate
    if candidate.latency_ms > fp32.latency_ms * _TIE:
        return candidate.rejected(
            f"takes {candidate.latency_ms:.3g} ms, {fp32.name} only {fp32.latency_ms:.3g} ms"
        )
    parent = by_name.get(candidate.parent or "", candidate)
    if candidate.latency_ms > parent.latency_ms:
        return candidate.rejected(
            f"int8 takes {candidate.latency_ms:.3g} ms, its float parent {parent.name} only "
            f"{parent.latency_ms:.3g} ms"
        )
    found = misses(candidate, fp32, budget)
    return candidate.rejected("; ".join(miss.text for miss in found)) if found else candidate


def _final(candidate: Candidate, best: Candidate, tied: int) -> Candidate:
    if candidate.verdict == "rejected":
        return candidate
    if candidate.name != best.name:
        return candidate.model_copy(
            update={"reason": f"{candidate.latency_ms / best.latency_ms:.2f}× the latency"}
        )
    how = f"the most accurate of {tied} within 3 % of the lowest" if tied > 1 else "lowest"
    return candidate.model_copy(
        update={"verdict": "chosen", "reason": f"{how} latency within the budget"}
    )


def _nothing_fits(judged: Sequence[Candidate], fp32: Candidate, budget: Budget) -> str:
    """The message; what was refused for another reason than the budget is not "nearest"."""
    limits = {candidate.name: misses(candidate, fp32, budget) for candidate in judged}
    texts = {name: "; ".join(miss.text for miss in found) for name, found in limits.items()}
    near = [candidate.name for candidate in judged if candidate.reason == texts[candidate.name]]
    nearest = min(near, key=lambda name: sum(miss.share for miss in limits[name]))
    return f"no candidate meets the budget; the nearest is {nearest}: {texts[nearest]}"


def _fall_back(judged: Sequence[Candidate], sound: set[str], nearest: str) -> list[Candidate]:
    """The fp32 graph goes on, on the fastest of the runtimes it is `sound` on."""
    best = min((c for c in judged if c.name in sound), key=lambda candidate: candidate.latency_ms)
    update = {"verdict": "chosen", "reason": f"budget.otherwise is fp32: {nearest}"}
    return [c.model_copy(update=update) if c.name == best.name else c for c in judged]


def _dominates(one: Candidate, other: Candidate) -> bool:
    ours = (-one.accuracy, one.latency_ms, one.size_bytes)
    theirs = (-other.accuracy, other.latency_ms, other.size_bytes)
    return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))
