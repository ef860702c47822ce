from __future__ import annotations

from pathlib import Path

import pytest

from deploy.supervisor import settings
from deploy.supervisor.settings import SettingsError


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("NAME=plain", "plain"),
        ("  NAME = spaced out  ", "spaced out"),
        ("export NAME=exported", "exported"),
        ("NAME='single # quoted'", "single # quoted"),
        ('NAME="double" # comment', "double"),
        ("NAME=bare # comment", "bare"),
        ("NAME=a#b", "a#b"),
        ("NAME=", ""),
        ("NAME=postgres://u:p=w@h:5/d?sslmode=require", "postgres://u:p=w@h:5/d?sslmode=require"),
    ],
)
def test_a_line_is_read_as_a_shell_would(line: str, value: str) -> None:
    assert settings.parse_env(f"# first\n{line}\n\nnonsense\n") == {"NAME": value}


def test_the_environment_beats_the_file_and_the_file_the_defaults(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("APP_PORT=4000\nPROXY_PORT=4001\nSANDBOX_BACKEND=docker\n")
    read = settings.load({"APP_PORT": "5000"}, tmp_path)
    assert (read.app_port, read.proxy_port, read.app_host) == (5000, 4001, "127.0.0.1")
    assert read.data_dir == tmp_path / "var"
    assert read.proxy_environment("token")["SANDBOX_BACKEND"] == "docker"


@pytest.mark.parametrize("value", ["no", "0", "-1", "65536", "1.5", "²"])
def test_a_port_that_is_no_port_is_named(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingsError, match="APP_PORT"):
        settings.load({"APP_PORT": value}, tmp_path)


def test_two_servers_cannot_have_one_port(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="both 4000"):
        settings.load({"APP_PORT": "4000", "PROXY_PORT": "4000"}, tmp_path)


def test_the_proxy_does_not_get_the_secrets_of_the_app(tmp_path: Path) -> None:
    read = settings.load({"DATABASE_URL": "postgres://secret", "SECRET_KEY": "secret", "UV_OFFLINE": "1"}, tmp_path)
    environment = read.proxy_environment("token")
    assert "secret" not in " ".join(environment.values())
    assert (environment["PROXY_TOKEN"], environment["UV_OFFLINE"]) == ("token", "1")
    assert read.app_environment("token")["DATABASE_URL"] == "postgres://secret"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:3000"),
        ("0.0.0.0", "http://127.0.0.1:3000"),  # noqa: S104 - only looked at
        ("::", "http://[::1]:3000"),
        ("sandbox.example", "http://sandbox.example:3000"),
    ],
)
def test_a_wildcard_address_is_reached_over_loopback(host: str, expected: str) -> None:
    assert settings.url(host, 3000) == expected
