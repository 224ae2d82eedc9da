"""The errors that planning finds in a manifest whose structure is wrong already."""

from __future__ import annotations

from batchgen.errors import Fault, ManifestError, SettingsError
from batchgen.ledger.clock import utc_now
from batchgen.manifest.loader import LoadedManifest
from batchgen.planning.planner import Planner
from batchgen.providers.profile import Profile
from batchgen.providers.rules.model_rules import Rulebook
from batchgen.session.provider_profile import resolve_profile
from batchgen.session.settings import Environment


def more_faults(sound: LoadedManifest) -> list[Fault]:
    """Return the errors in the sound part of a manifest: of templates, columns, rows and rules."""
    try:
        profile = resolve_profile(sound.manifest.provider, Environment.load(sound.base))
    except SettingsError:
        return []
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
        return list(error.faults)
    return []


def rules_of(profile: Profile, loaded: LoadedManifest) -> Rulebook:
    """Return the rules of the provider for the models of a manifest, as of today."""
    return Rulebook(
        provider=profile.name,
        models=profile.known_models(),
        today=utc_now().date(),
        refuse=loaded.manifest.rules == "refuse",
    )
