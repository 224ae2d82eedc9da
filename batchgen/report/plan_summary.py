"""A plan as text for a person and as values for other programs."""

from __future__ import annotations

from batchgen.ledger.budgets import Budget
from batchgen.money import decimal_string
from batchgen.planning.cost_estimate import Estimate, WhatIf
from batchgen.report.plan_text import plan_heading, plan_text
from batchgen.report.status import unpublished_lines
from batchgen.session.proposal import PlanSummary


def plan_summary_text(summary: PlanSummary) -> str:
    """Return what a run would do and cost, as lines for a terminal."""
    proposal = summary.proposal
    return plan_text(
        plan_heading(summary.batch, summary.provider, summary.price_source),
        proposal.groups,
        proposal.estimate,
        proposal.budgets,
        unfetched=summary.unfetched,
        repeats=proposal.repeats,
        has_unpriced=summary.unpriced > 0,
        unpublished=unpublished_lines(summary.batch, summary.unpublished),
    )


def plan_record(summary: PlanSummary) -> dict[str, object]:
    """Return a plan as JSON values: dollars as decimal strings, shares in percent."""
    proposal = summary.proposal
    return {
        "batch": summary.batch,
        "provider": summary.provider,
        "price_source": summary.price_source,
        "unfetched": summary.unfetched,
        "unpriced": summary.unpriced,
        "unpublished": summary.unpublished.as_json(),
        "groups": {
            group.value: {
                "jobs": one.jobs,
                "cost": decimal_string(one.cost) if group.is_sent else "0.000000",
            }
            for group, one in proposal.groups.items()
        },
        "repeats": {
            "jobs": proposal.repeats.jobs,
            "cost": decimal_string(proposal.repeats.cost),
        },
        **_estimate_record(proposal.estimate),
        "budgets": [budget_record(budget) for budget in proposal.budgets],
    }


def budget_record(budget: Budget) -> dict[str, object]:
    """Return a budget as JSON values."""
    return {
        "period": budget.period,
        "max_cost": decimal_string(budget.max_cost),
        "used": decimal_string(budget.used),
        "left": decimal_string(budget.left),
    }


def _estimate_record(estimate: Estimate) -> dict[str, object]:
    found, expected_s = estimate.what_if, estimate.pace.expected_s(estimate.requests)
    return {
        "requests": estimate.requests,
        "estimate": decimal_string(estimate.cost),
        "expected_seconds": expected_s if expected_s is None else round(expected_s, 1),
        "what_if": None if found is None else _what_if_record(found),
    }


def _what_if_record(found: WhatIf) -> dict[str, object]:
    return {
        "again_percent": str(found.again_percent),
        "accepted_percent": str(found.accepted_percent),
        "total": decimal_string(found.total),
        "per_accepted": None if found.per_accepted is None else decimal_string(found.per_accepted),
    }
