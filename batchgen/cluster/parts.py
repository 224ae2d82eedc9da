"""What a driver has of its cluster, from before the run."""

from __future__ import annotations

from dataclasses import dataclass

from batchgen.cluster.actors import Started
from batchgen.cluster.lease import Lease
from batchgen.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterParts:
    """The actors, the bucket and the lease of a run."""

    started: Started
    store: Store
    """The output directory, which also has intents, responses and staging names."""
    lease: Lease
    grace_s: float = 30.0
    """How long to wait for the response of an order that is lost."""
    keeps_intents: bool = False
    """Whether intents and responses stay until the end of their attempts is backed up."""
