"""Which candidate wins for which purpose, and why each of the others lost: a pure function.

Only candidates within the loss that may be chosen by itself, whose outputs do not depend on batch
mates, take part. Bulk goes by throughput, queries by the median of a lone one; near ties go to the
one that takes less memory. A second loaded encoder must earn its memory by more than 15 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondol.core.errors import GateFailed
from ondol.models.profile import Purpose
from ondol.models.tuning.candidates import SERVED_POLICIES, Candidate, Engine
from ondol.models.tuning.measured import Figures, Measured

TIE = 0.05
SECOND_ENGINE_GAIN = 0.15


@dataclass(frozen=True, slots=True)
class Choice:
    """The winners by purpose, and one sentence on every candidate."""

    winners: dict[Purpose, Measured]
    verdicts: dict[Candidate, str]


def choose(measured: Sequence[Measured], *, max_loss: float) -> Choice:
    """Return the winners among ``measured``. Raises ``GateFailed`` when none may be chosen."""
    able = [one for one in measured if one.eligible(max_loss)]
    if not able:
        reasons = "; ".join(f"{one.candidate}: {_unable(one, max_loss)}" for one in measured)
        raise GateFailed(
            f"no form within a loss of {max_loss:.2%}: {reasons or 'nothing was measured'}",
            hint="raise fidelity.default_max_loss, or name a form with models.form",
        )
    bulk, query = _fastest(able, _throughput), _fastest(able, _quickness)
    if bulk.candidate.engine != query.candidate.engine:
        bulk, query = _shared_or_two(able, bulk, query)
    else:
        query = bulk  # one encoder, one queue, one budget
    winners: dict[Purpose, Measured] = {"query": query, "bulk": bulk}
    verdicts = {one.candidate: _verdict(one, winners, max_loss) for one in measured}
    return Choice(winners, verdicts)


def leaders(measured: Sequence[Measured], *, max_loss: float, count: int) -> list[Engine]:
    """Return the engines worth another round: the best ``count`` in bulk, and the quickest."""
    able = [one for one in measured if one.eligible(max_loss)]
    by_bulk = sorted(able, key=_throughput, reverse=True)
    engines = list(dict.fromkeys(one.candidate.engine for one in by_bulk))[:count]
    if able:
        engines.append(max(able, key=_quickness).candidate.engine)
    return list(dict.fromkeys(engines))


def _shared_or_two(
    able: Sequence[Measured], bulk: Measured, query: Measured
) -> tuple[Measured, Measured]:
    """Return both winners, or one that does both where two would gain too little."""

    def together(engine: Engine) -> float:
        best = _of(able, engine)
        return _throughput(best) / _throughput(bulk) * (_quickness(best) / _quickness(query))

    engines = dict.fromkeys(one.candidate.engine for one in able)
    shared = _of(able, max(engines, key=together))
    gain = max(_throughput(bulk) / _throughput(shared), _quickness(query) / _quickness(shared))
    if gain > 1 + SECOND_ENGINE_GAIN:
        return bulk, _of(able, query.candidate.engine)
    return shared, shared


def _of(able: Sequence[Measured], engine: Engine) -> Measured:
    """Return the engine's best batching."""
    return _fastest([one for one in able if one.candidate.engine == engine], _throughput)


def _fastest(able: Sequence[Measured], speed: Callable[[Measured], float]) -> Measured:
    best = max(speed(one) for one in able)
    near = [one for one in able if speed(one) >= best * (1 - TIE)]
    return min(near, key=lambda one: (_figures(one).peak_rss_mb, -speed(one)))


def _verdict(one: Measured, winners: dict[Purpose, Measured], max_loss: float) -> str:
    won = [purpose for purpose, winner in winners.items() if winner.candidate == one.candidate]
    if won:
        return f"chosen for {' and '.join(won)}"
    if not one.eligible(max_loss):
        return _unable(one, max_loss)
    return f"{_against_bulk(one, winners['bulk'])}; {_against_query(one, winners['query'])}"


def _unable(one: Measured, max_loss: float) -> str:
    if one.figures is None:
        return f"failed: {one.failure}"
    if one.loss is None:
        return "its fidelity was not measured"
    if one.loss > max_loss:
        return f"loses {one.loss:.2%}, {max_loss:.2%} is allowed"
    if one.candidate.policy not in SERVED_POLICIES:
        return "for comparison only: the engine batches by nearest length"
    return f"its outputs depend on batch mates (cosine {one.fidelity.get('batch_mates', 0):.4f})"


def _against_bulk(one: Measured, winner: Measured) -> str:
    ratio = _throughput(one) / _throughput(winner)
    more = _figures(one).peak_rss_mb - _figures(winner).peak_rss_mb
    if ratio >= 1 - TIE and more > 0:
        return f"bulk: as fast within {TIE:.0%}, but {more:.0f} MB more"
    return f"bulk: {ratio:.2f} of the winner's throughput"


def _against_query(one: Measured, winner: Measured) -> str:
    return f"query: p50 {_figures(one).p50_ms:.2f} ms, the winner's {_figures(winner).p50_ms:.2f}"


def _throughput(one: Measured) -> float:
    return _figures(one).texts_per_second


def _quickness(one: Measured) -> float:
    return 1000.0 / max(_figures(one).p50_ms, 1e-6)


def _figures(one: Measured) -> Figures:
    if one.figures is None:
        raise ValueError(f"{one.candidate} was not measured")
    return one.figures
