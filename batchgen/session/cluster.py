"""The cluster of a run: where it is, the lease of the batch, and actors that have greeted.

Everything here is before the plan is approved, so that a run that is refused changes nothing. Ray
and the bucket are imported only by a run that names a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from batchgen.errors import SettingsError
from batchgen.session.prepare import RunSpec, key_of
from batchgen.session.settings import Environment, exported
from batchgen.session.storage import CREDENTIALS
from batchgen.storage.probe import probe
from batchgen.text import counted
from batchgen.urls import is_bucket, is_url

if TYPE_CHECKING:
    from batchgen.cluster.actors import Started
    from batchgen.cluster.messages import ActorSettings
    from batchgen.cluster.parts import ClusterParts
    from batchgen.storage.store import Store

_RAY: Final = "ray"
_CLIENT: Final = "ray://"
_FEWEST_ACTORS: Final = 2
"""The loss of one leaves another."""
_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlace:
    """What ``--on`` names."""

    where: str
    """As ``ray.init`` takes it; empty for a cluster that the run starts on this machine."""

    @classmethod
    def parse(cls, text: str) -> ClusterPlace:
        """Parse ``ray``, ``ray://HOST:PORT`` or ``ray=HOST:PORT``. Raises SettingsError."""
        if text == _RAY:
            return cls(where="")
        if text.startswith(_CLIENT) and len(text) > len(_CLIENT):
            return cls(where=text)
        name, _, where = text.partition("=")
        if name == _RAY and where and not is_url(where):
            return cls(where=where)
        raise SettingsError(
            f"--on: not a cluster: {text!r}; expected ray (a cluster on this machine),"
            " ray://HOST:10001 (Ray Client), ray=HOST:6379, or ray=auto on a node of the cluster"
        )


@contextmanager
def cluster_of(
    spec: RunSpec, notice: Callable[[str], None], *, keeps_intents: bool
) -> Iterator[ClusterParts | None]:
    """Yield the parts of a cluster that a run may use; None without ``--on``.

    ``keeps_intents`` leaves the objects of finished attempts to the backup of the ledger. Raises
    SettingsError and BatchLockedError; nothing was sent then.
    """
    if spec.overrides.on is None:
        yield None
        return
    place = ClusterPlace.parse(spec.overrides.on)
    root = _output_root(spec)
    _check_proxy(spec)
    from batchgen.cluster.lease import Driver, acquire
    from batchgen.cluster.parts import ClusterParts

    prepared = spec.prepared
    store = prepared.stores().of(root)
    _check_store(store, root)
    with ExitStack() as held:
        driver = Driver(take_over=spec.overrides.take_over)
        lease = held.enter_context(acquire(store, spec.name, driver, notice=notice))
        settings = _settings(spec, root, lease.epoch)
        started = held.enter_context(_started(spec, place, settings, notice))
        yield ClusterParts(
            started=started,
            store=store,
            lease=lease,
            grace_s=grace_of(prepared.environment),
            keeps_intents=keeps_intents,
        )


def grace_of(environment: Environment) -> float:
    """Return how long to wait for a response whose sender is lost. Raises SettingsError."""
    return environment.seconds("BATCHGEN_CLUSTER_GRACE", 30.0)


def _output_root(spec: RunSpec) -> str:
    output = spec.prepared.loaded.manifest.output
    root = output.dir if output is not None else None
    if root is None or not is_bucket(root):
        raise SettingsError(
            f"--on {spec.overrides.on}: needs an output directory that every node can reach; got"
            f" {root or 'a directory of this machine'}; expected `output: {{dir: s3://BUCKET/PREFIX"
            "}`, or gs:// or az://; nothing was sent"
        )
    return root


def _check_proxy(spec: RunSpec) -> None:
    """Refuse a proxy whose password messages to actors would show. Raises SettingsError."""
    proxy = spec.prepared.profile.network.proxy
    if proxy is not None and proxy.password:
        raise SettingsError(
            f"--on {spec.overrides.on}: the proxy has a password, which messages to actors would"
            " show; expected a proxy without one; nothing was sent"
        )


def _check_store(store: Store, root: str) -> None:
    """Refuse a store that would let two machines write one object. Raises SettingsError."""
    found = probe(store)
    if not found.is_safe:
        missing = "If-Match" if found.create_only else "If-None-Match"
        raise SettingsError(
            f"{root}: this service ignores conditional writes ({missing}), and a run on a cluster"
            " needs them; expected S3, Google Cloud Storage, Azure or a current MinIO;"
            " nothing was sent"
        )


def _settings(spec: RunSpec, root: str, epoch: int) -> ActorSettings:
    from batchgen.cluster.messages import ActorSettings

    profile, environment = spec.prepared.profile, spec.prepared.environment
    storage = spec.prepared.loaded.manifest.storage
    return ActorSettings(
        root=root,
        storage=(None, None) if storage is None else (storage.endpoint, storage.region),
        key_variable=profile.key_variable,
        open_key=profile.open_key,
        network=profile.network,
        epoch=epoch,
        silent_s=environment.seconds("BATCHGEN_CLUSTER_SILENT", 30.0),
    )


@contextmanager
def _started(
    spec: RunSpec, place: ClusterPlace, settings: ActorSettings, notice: Callable[[str], None]
) -> Iterator[Started]:
    """Yield actors that have greeted and run the same versions. Raises SettingsError."""
    from dataclasses import replace

    from batchgen.cluster.actors import Started
    from batchgen.cluster.messages import greeting
    from batchgen.cluster.ray_nodes import RayNodes
    from batchgen.session.actor_parts import build_parts

    environment, profile = spec.prepared.environment, spec.prepared.profile
    names = [*CREDENTIALS, *filter(None, [profile.key_variable])]
    # Workers of a cluster on this machine have the environment of its first process.
    with exported(environment, names if not place.where else []):
        nodes = RayNodes(place.where)
    try:
        count = spec.overrides.actors or max(_FEWEST_ACTORS, nodes.count)
        armed = replace(settings, failpoint=environment.get("BATCHGEN_ACTOR_FAILPOINT"))
        wanted = [settings if number else armed for number in range(count)]
        nonce, key = os.urandom(_NONCE_BYTES), key_of(profile, environment)
        ours = greeting("this machine", key.reveal() if key else None, nonce)
        actors = nodes.start_all(wanted, build_parts, nonce)
        for _, found in actors:
            difference = found.difference(ours)
            if difference:
                raise SettingsError(
                    f"--on {spec.overrides.on}: node {found.node}: {difference}; nothing was sent"
                )
        ready = f"{counted(count, 'actor')} on {counted(nodes.count, 'node')}"
        notice(f"{spec.name}: {ready} ready")
        yield Started(
            nodes=nodes,
            settings=settings,
            build=build_parts,
            handles=[handle for handle, _ in actors],
            ours=ours,
            nonce=nonce,
        )
    finally:
        nodes.disconnect()
