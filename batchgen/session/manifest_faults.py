"""The errors that planning finds in a manifest whose structure is wrong already."""

from __future__ import annotations

from collections.abc import Sequence

from batchgen.errors import Fault, ManifestError
from batchgen.ledger.clock import utc_now
from batchgen.manifest.loader import LoadedManifest
from batchgen.planning.planner import Planner
from batchgen.providers.profile import Profile
from batchgen.providers.rules.model_rules import Rulebook


def more_faults(sound: LoadedManifest, profile: Profile) -> Sequence[Fault]:
    """Return the errors in the sound part of a manifest: of templates, columns, rows and rules."""
    planner = Planner(
        sound,
        provider=profile.name,
        default_model=profile.default_model,
        rules=rules_of(profile, sound),
    )
    try:
        for _ in planner:
            pass
    except ManifestError as error:
        return error.faults
    return ()


def rules_of(profile: Profile, loaded: LoadedManifest) -> Rulebook:
    """Return the rules of the provider for the models of a manifest, as of today."""
    return Rulebook(
        provider=profile.name,
        models=profile.known_models(),
        today=utc_now().date(),
        refuse=loaded.manifest.rules == "refuse",
    )
