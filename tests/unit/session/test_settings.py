"""Keys, places and providers from the environment, and what no key may be sent to."""

from __future__ import annotations

import traceback
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchgen.errors import SettingsError
from batchgen.manifest.model import ProviderSpec
from batchgen.money import Micros
from batchgen.providers.account import ApiKey
from batchgen.providers.crazyrouter import CRAZYROUTER
from batchgen.providers.registry import PROFILES
from batchgen.session.provider_profile import resolve_profile
from batchgen.session.settings import Environment
from batchgen.urls import check_base_url, is_loopback
from tests.support.canary import CANARY as KEY

EMPTY = Environment({})


# Keys


def test_key_is_in_no_representation() -> None:
    key = Environment({"K": f" {KEY} "}).key("K")
    assert key.reveal() == KEY
    for text in (
        repr(key),
        str(key),
        f"{key}",
        f"{key!r}",
        repr([key]),
        repr(Environment({"K": KEY})),
    ):
        assert KEY not in text
    with pytest.raises(TypeError):
        vars(ApiKey(KEY))


@pytest.mark.fault("S14")
@pytest.mark.parametrize(
    "value",
    [
        f"{KEY}\nX-Injected: 1",
        f"{KEY}\r\nX-Injected: 1",
        f"{KEY}\x00",
        f"two {KEY}",
        f"{KEY}\u00e9",
        f"\u201c{KEY}\u201d",
        f"{KEY}\tx",
    ],
)
def test_a_key_that_no_header_can_carry_is_refused_unseen(value: str) -> None:
    with pytest.raises(SettingsError, match="K is not a usable API key") as caught:
        Environment({"K": value}).key("K")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("variables", [{}, {"K": ""}, {"K": "  \n"}])
def test_a_missing_key_says_where_it_belongs(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"set K in the environment.*provider: local"):
        Environment(variables).key("K")


# The ledger


def test_ledger_path_prefers_flag_then_environment_then_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = Environment({"BATCHGEN_DB": "from_environment.db"})
    assert named.ledger_path(Path("flag.db"), tmp_path / "m") == tmp_path / "flag.db"
    assert named.ledger_path(None, tmp_path / "m") == tmp_path / "from_environment.db"
    assert EMPTY.ledger_path(None, tmp_path / "m") == tmp_path / "m" / "batchgen.db"


def test_ledger_is_found_here_or_in_jobs_without_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert EMPTY.ledger_path(None, None) == tmp_path / "batchgen.db"
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "batchgen.db").touch()
    assert EMPTY.ledger_path(None, None) == tmp_path / "jobs" / "batchgen.db"
    (tmp_path / "batchgen.db").touch()
    assert EMPTY.ledger_path(None, None) == tmp_path / "batchgen.db"


def test_the_home_directory_may_be_written_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    found = Environment({"BATCHGEN_DB": "~/night.db"}).ledger_path(None, None)
    assert found == tmp_path / "night.db"


# ${NAME}


def test_variables_are_put_in_their_places() -> None:
    env = Environment({"A": "1", "B": "${A}"})
    assert env.expand("x${A}y${A}z", "provider.name") == "x1y1z"
    assert env.expand("${B}", "provider.name") == "${A}"
    assert env.expand("$A {A} ${} ${a b}", "provider.name") == "$A {A} ${} ${a b}"


@pytest.mark.fault("M20")
@pytest.mark.parametrize("variables", [{}, {"HOST": ""}])
def test_an_unset_variable_is_an_error_that_names_it(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=r"provider\.base_url: .* HOST is not set"):
        Environment(variables).expand("https://${HOST}/v1", "provider.base_url")


# Providers


@pytest.mark.parametrize("name", PROFILES)
def test_a_built_in_provider_is_found_by_name(name: str) -> None:
    assert resolve_profile(name, EMPTY) is PROFILES[name]


@pytest.mark.parametrize("provider", ["crazyrooter", ProviderSpec(name="crazyrooter")])
def test_an_unknown_provider_is_an_error_that_lists_the_known(
    provider: str | ProviderSpec,
) -> None:
    with pytest.raises(SettingsError, match=r"unknown provider 'crazyrooter'.*crazyrouter, openai"):
        resolve_profile(provider, EMPTY)


def test_a_mapping_describes_an_endpoint() -> None:
    spec = ProviderSpec.model_validate(
        {
            "base_url": "https://${HOST}/v1/",
            "api_key_env": "MY_KEY",
            "price": "0.02",
            "idempotency": "replay",
        }
    )
    profile = resolve_profile(spec, Environment({"HOST": "images.example:8443"}))
    assert profile.name == "images.example:8443"
    assert profile.base_url == "https://images.example:8443/v1"
    assert profile.key_variable == "MY_KEY"
    assert profile.price("any model") == Micros(20_000)
    assert profile.price_source == "the manifest"
    assert profile.replays_idempotency_key


def test_a_mapping_may_extend_a_built_in_provider() -> None:
    profile = resolve_profile(ProviderSpec(name="crazyrouter", api_key_env="SECOND_KEY"), EMPTY)
    assert profile == replace(CRAZYROUTER, key_variable="SECOND_KEY")
    moved = resolve_profile(
        ProviderSpec(name="crazyrouter", base_url="https://crazyrouter.com/v1"), EMPTY
    )
    assert moved == replace(CRAZYROUTER, base_url="https://crazyrouter.com/v1")


def test_a_price_of_the_manifest_replaces_the_list() -> None:
    profile = resolve_profile(
        ProviderSpec.model_validate({"name": "crazyrouter", "price": "1"}), EMPTY
    )
    assert profile.price("gpt-image-2") == Micros(1_000_000)


def test_provider_without_a_url_is_refused() -> None:
    with pytest.raises(SettingsError, match="base_url or the name of a built-in"):
        resolve_profile(ProviderSpec(api_key_env="K"), EMPTY)


@pytest.mark.fault("S10")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", "cheap"),
        ("price", "-1"),
        ("base_url", "http://["),
        ("base_url", "http://shop.example/v1"),
        ("base_url", "https://user:secret@shop.example/v1"),
        ("base_url", "https://shop.example:port/v1"),
        ("base_url", "https://shop.example/v1\n"),
        ("base_url", "nonsense"),
    ],
)
def test_what_a_variable_brings_in_is_checked_too(field: str, value: str) -> None:
    given = {"base_url": "https://shop.example/v1"} | {field: "${VALUE}"}
    spec = ProviderSpec.model_validate(given)
    with pytest.raises(SettingsError, match=rf"provider\.{field}") as caught:
        resolve_profile(spec, Environment({"VALUE": value}))
    assert "secret" not in str(caught.value)


# URLs


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("https://api.openai.com/v1//", "https://api.openai.com/v1"),
        ("https://shop.example", "https://shop.example"),
        ("HTTPS://shop.example/v1", "HTTPS://shop.example/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_good_url_is_kept_without_its_last_slash(url: str, kept: str) -> None:
    assert check_base_url(url) == kept


@pytest.mark.fault("S10")
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://shop.example/v1", "unencrypted"),
        ("http://localhost.shop.example/v1", "unencrypted"),
        ("http://10.0.0.1/v1", "unencrypted"),
        ("http://127.0.0.1.shop.example/v1", "unencrypted"),
        ("ftp://shop.example/v1", "not a valid URL"),
        ("file:///etc/passwd", "not a valid URL"),
        ("shop.example/v1", "not a valid URL"),
        ("//shop.example/v1", "not a valid URL"),
        ("https://", "not a valid URL"),
        ("https:///v1", "not a valid URL"),
        ("", "not a valid URL"),
        ("https://shop.example:99999/v1", "not a valid URL"),
        ("https://[::1/v1", "not a valid URL"),
        ("https://shop example/v1", "not a valid URL"),
        ("https://shop.example/v1\r\nX-Injected: 1", "not a valid URL"),
        ("https://user:secret@shop.example/v1", "not allowed"),
        ("https://secret@shop.example/v1", "not allowed"),
        ("https://@shop.example/v1", "not allowed"),
        ("ftp://user:secret@shop.example/v1", "not allowed"),
        ("https://shop.example/v1?key=secret", "not allowed"),
        ("https://shop.example/v1#secret", "not allowed"),
    ],
)
def test_url_that_no_key_may_be_sent_to_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check_base_url(url)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=60) | st.text(max_size=40).map("https://{}".format))
def test_any_text_is_a_url_or_refused(url: str) -> None:
    try:
        kept = check_base_url(url)
    except ValueError:
        return
    assert kept.isprintable()
    assert check_base_url(kept) == kept


@pytest.mark.parametrize(
    ("host", "response"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost.example", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_loopback_is_recognized_by_name_and_ip_address(host: str, response: bool) -> None:
    assert is_loopback(host) is response


ACCOUNT = {"CRAZYROUTER_ACCESS_TOKEN": KEY, "CRAZYROUTER_USER_ID": " 7 "}


def test_an_account_is_a_token_and_a_number() -> None:
    assert CRAZYROUTER.account_log is not None
    account = Environment(ACCOUNT).account(CRAZYROUTER.account_log)
    assert (account.token.reveal(), account.user) == (KEY, "7")
    assert KEY not in repr(account)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"CRAZYROUTER_ACCESS_TOKEN": ""}, "no access token: set CRAZYROUTER_ACCESS_TOKEN .*--log"),
        (
            {"CRAZYROUTER_ACCESS_TOKEN": f"{KEY} x"},
            "CRAZYROUTER_ACCESS_TOKEN is not a usable access token",
        ),
        ({"CRAZYROUTER_USER_ID": ""}, "set CRAZYROUTER_USER_ID to the number"),
        ({"CRAZYROUTER_USER_ID": f"7\n{KEY}"}, "set CRAZYROUTER_USER_ID to the number"),
        ({"CRAZYROUTER_USER_ID": "\u0667"}, "set CRAZYROUTER_USER_ID to the number"),
    ],
)
def test_an_account_that_no_header_can_carry_is_refused_unseen(
    change: dict[str, str], message: str
) -> None:
    assert CRAZYROUTER.account_log is not None
    with pytest.raises(SettingsError, match=message) as raised:
        Environment(ACCOUNT | change).account(CRAZYROUTER.account_log)
    assert KEY not in str(raised.value)


def test_the_embedded_endpoint_needs_no_account() -> None:
    log = PROFILES["local"].account_log
    assert log is not None
    assert EMPTY.account(log).user == "1"
