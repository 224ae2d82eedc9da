"""What each executor with a lease does before a paid request: check the lease, write the intent."""

from __future__ import annotations

from batchgen.cluster.intents import Intent
from batchgen.cluster.lease import Lease
from batchgen.engine.context import RunContext
from batchgen.engine.executor import ExchangeOrder, NotSentError
from batchgen.errors import StoppedError
from batchgen.ledger.clock import timestamp, utc_now


def require_lease(context: RunContext, lease: Lease) -> None:
    """Stop dispatch and raise NotSentError unless the lease is held."""
    try:
        lease.check()
    except StoppedError as exc:
        context.throttle.stop(str(exc))
        raise NotSentError(str(exc)) from None


def intent_of(context: RunContext, order: ExchangeOrder, *, batch: str, epoch: int) -> Intent:
    """Return the intent of an order of this moment."""
    job, terms = order.job, order.terms
    return Intent(
        attempt=order.attempt,
        epoch=epoch,
        batch=batch,
        key=job.key,
        fingerprint=job.fingerprint,
        provider=context.profile.name,
        model=job.model,
        price=job.price,
        least=terms.least_within(job.price),
        price_known=terms.is_known,
        started_at=timestamp(utc_now()),
    )
