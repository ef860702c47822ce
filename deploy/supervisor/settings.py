"""Read what the supervisor needs from the environment and `.env`; make the environments of the processes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - looked up, not bound
# The proxy needs none of these, and it is the process nearest to untrusted code.
NOT_FOR_THE_PROXY = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "SANDBOXWEB_API_KEY", "SANDBOXWEB_ADMIN_PASSWORD")
ENV_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


class SettingsError(Exception):
    """Name a setting whose value cannot be used."""


@dataclass(frozen=True)
class Settings:
    """Where things listen and where data lives; `environment` is what the user set, `.env` included."""

    root: Path
    data_dir: Path
    app_host: str
    app_port: int
    proxy_host: str
    proxy_port: int
    environment: Mapping[str, str]

    @property
    def app_url(self) -> str:
        """URL by which this machine reaches the app server."""
        return url(self.app_host, self.app_port)

    @property
    def proxy_url(self) -> str:
        """URL by which this machine reaches the proxy server."""
        return url(self.proxy_host, self.proxy_port)

    @property
    def log_dir(self) -> Path:
        """Directory of the processes' logs."""
        return self.data_dir / "logs"

    def app_environment(self, proxy_token: str) -> dict[str, str]:
        """Environment of the app server, the reaper and `manage.py`."""
        return {
            **self.environment,
            "DATA_DIR": str(self.data_dir),
            "APP_HOST": self.app_host,
            "APP_PORT": str(self.app_port),
            "PROXY_URL": self.proxy_url,
            "PROXY_TOKEN": proxy_token,
            "PYTHONUNBUFFERED": "1",
        }

    def proxy_environment(self, proxy_token: str) -> dict[str, str]:
        """Environment of the proxy server, without the app's secrets."""
        own = {name: value for name, value in self.environment.items() if name not in NOT_FOR_THE_PROXY}
        return {
            **own,
            "DATA_DIR": str(self.data_dir),
            "PROXY_HOST": self.proxy_host,
            "PROXY_PORT": str(self.proxy_port),
            "PROXY_TOKEN": proxy_token,
            "PYTHONUNBUFFERED": "1",
        }


def load(environ: Mapping[str, str], root: Path = ROOT) -> Settings:
    """Read the settings; the environment beats `root/.env`. Raise SettingsError for a bad port."""
    dotenv = root / ".env"
    from_file = parse_env(dotenv.read_text(encoding="utf-8")) if dotenv.is_file() else {}
    values = {**from_file, **environ}
    settings = Settings(
        root=root,
        data_dir=(root / Path(values.get("DATA_DIR") or "var").expanduser()).resolve(),
        app_host=values.get("APP_HOST") or "127.0.0.1",
        app_port=port(values, "APP_PORT", 3000),
        proxy_host=values.get("PROXY_HOST") or "127.0.0.1",
        proxy_port=port(values, "PROXY_PORT", 8000),
        environment=values,
    )
    if settings.app_port == settings.proxy_port:
        raise SettingsError(f"APP_PORT and PROXY_PORT are both {settings.app_port}; they must differ.")
    return settings


def port(values: Mapping[str, str], name: str, default: int) -> int:
    """Read a TCP port."""
    text = values.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65536:
        raise SettingsError(f"{name} is {text!r}; it must be a number from 1 to 65535.")
    return int(text)


def parse_env(text: str) -> dict[str, str]:
    """Parse `NAME=value` lines as a shell would read the simple ones: quotes, `export`, comments."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        match = ENV_LINE.match(line)
        if match is None:
            continue
        name, value = match.groups()
        if value[:1] in ("'", '"') and (end := value.find(value[0], 1)) > 0:
            value = value[1:end]
        else:
            value = re.sub(r"(^|\s)#.*$", "", value).strip()
        values[name] = value
    return values


def url(host: str, port_number: int) -> str:
    """Return an http URL; a wildcard address is reached over loopback."""
    host = WILDCARDS.get(host, host)
    return f"http://[{host}]:{port_number}" if ":" in host else f"http://{host}:{port_number}"
