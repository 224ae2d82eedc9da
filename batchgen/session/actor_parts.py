"""Build the parts of an actor from the environment of its own machine."""

from __future__ import annotations

from pathlib import Path

from batchgen.cluster.actor import ActorParts
from batchgen.cluster.messages import ActorSettings
from batchgen.errors import SettingsError
from batchgen.http.session import open_network
from batchgen.manifest.model import Storage
from batchgen.session.settings import Environment
from batchgen.session.storage import stores_for


def build_parts(settings: ActorSettings) -> ActorParts:
    """Return key, bucket and network. Raises SettingsError for what this machine lacks."""
    environment = Environment.load()
    key = settings.open_key
    if settings.key_variable is not None:
        key = environment.key(settings.key_variable).reveal()
    endpoint, region = settings.storage
    storage = Storage(endpoint=endpoint, region=region, single_writer=False)
    store = stores_for(Path(), storage, environment).of(settings.root)
    try:
        store.info("lock/")
    except OSError as exc:
        raise SettingsError(f"{settings.root}: cannot be reached: {exc.strerror or exc}") from exc
    return ActorParts(store=store, key=key, network=open_network(settings.network))
