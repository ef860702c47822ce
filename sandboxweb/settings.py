"""Settings of the app server, read from the environment and `.env`; docs/settings.md describes each."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ImproperlyConfigured

from sandboxweb import __version__
from sandboxweb.env import credential, data_dir, env, retention, secret_key, upload_dir
from sessions_app.limits import MAX_BODY_BYTES

# --- What an installation chooses -----------------------------------------------------------------------------------

PRODUCTION = env.bool("SANDBOXWEB_PRODUCTION", default=False)
DEBUG = env.bool("DEBUG", default=False)
DATA_DIR = data_dir()
SECRET_KEY = secret_key(DATA_DIR)
VERSION = __version__

APP_HOST = env.str("APP_HOST", default="127.0.0.1")
APP_PORT = env.int("APP_PORT", default=3000)
ALLOWED_HOSTS: list[str] = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[])

PROXY_URL = credential("PROXY_URL", DATA_DIR, default="http://127.0.0.1:8000").rstrip("/")
PROXY_TOKEN = credential("PROXY_TOKEN", DATA_DIR)
APP_THREADS = env.int("APP_THREADS", default=512)
# The largest file or archive that is taken, and what any other body may have; neither is held in memory.
MAX_UPLOAD_BYTES = env.int("MAX_UPLOAD_BYTES", default=4 * 1024**3)
MAX_REQUEST_BYTES = 32 * 1024**2
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES
FILE_UPLOAD_TEMP_DIR = str(upload_dir(DATA_DIR))
REDIS_URL = env.str("REDIS_URL", default="")
SESSION_RETENTION = retention("SESSION_RETENTION", "30d")
ARTIFACTS_DIR = DATA_DIR / "artifacts"
ARTIFACT_RETENTION = retention("ARTIFACT_RETENTION", "7d")
ARTIFACT_QUOTA_BYTES = env.int("ARTIFACT_QUOTA_BYTES", default=1024**3)
LOG_LEVEL = env.str("LOG_LEVEL", default="INFO").upper()

# --- The application ------------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "daphne",
    "sessions_app",
    "sandboxweb.apps.SandboxwebAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "rest_framework_api_key",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "drf_standardized_errors",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "sandboxweb.urls"
ASGI_APPLICATION = "sandboxweb.asgi.application"
APPEND_SLASH = False
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# --- The database ---------------------------------------------------------------------------------------------------

SQLITE_OPTIONS: dict[str, Any] = {
    # A writer takes its lock at BEGIN and waits for it: a transaction never dies half-way with "database is locked".
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-4000;",
}


def _database() -> dict[str, Any]:
    database: dict[str, Any] = env.db_url("DATABASE_URL", default=f"sqlite:///{DATA_DIR / 'db.sqlite3'}")
    options: dict[str, Any] = database.setdefault("OPTIONS", {})
    if database["ENGINE"].endswith("sqlite3"):
        # One connection a thread, kept: to open one costs as much as the queries of a request.
        options = {**SQLITE_OPTIONS, **options}
        return {**database, "ENGINE": "sandboxweb.db.sqlite3", "CONN_MAX_AGE": None, "OPTIONS": options}
    if database["ENGINE"].endswith("postgresql"):
        pool = {"min_size": 2, "max_size": env.int("DATABASE_POOL_SIZE", default=20), "timeout": 30}
        return {**database, "OPTIONS": {"pool": pool, **options}}
    message = f"DATABASE_URL names {database['ENGINE']}: Sandboxweb runs on SQLite and PostgreSQL."
    raise ImproperlyConfigured(message)


DATABASES = {"default": _database()}

# --- Processes side by side -----------------------------------------------------------------------------------------

if REDIS_URL:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- Who may come in ------------------------------------------------------------------------------------------------

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "/login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_NAME = "sandboxweb_session"
CSRF_COOKIE_NAME = "sandboxweb_csrf"
CSRF_FAILURE_VIEW = "sessions_app.api.plain.csrf_failure"

if PRODUCTION:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", default=True)
    # Health checks come from inside, without TLS, and answer nothing that needs it.
    SECURE_REDIRECT_EXEMPT = [r"^$"]
    SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=365 * 24 * 3600)
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    if env.bool("BEHIND_TLS_PROXY", default=False):
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# --- What is shown --------------------------------------------------------------------------------------------------

LANGUAGE_CODE = "en-us"
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_TZ = True
FORMAT_MODULE_PATH = ["sandboxweb.formats"]

STATIC_URL = "/static/"
# Served from the installed packages, so that a bare checkout needs no collectstatic; a directory of
# collected files is used where one is named.
STATIC_ROOT = env.str("STATIC_ROOT", default="") or None
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 3600

# --- The REST API ---------------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "sessions_app.auth.ApiKeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "sessions_app.api.renderers.BrowsableRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": [
        "sessions_app.api.parsers.BoundedJSONParser",
        "sessions_app.api.parsers.BoundedFormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "sessions_app.api.pagination.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "drf_standardized_errors.handler.exception_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_HANDLER_CLASS": "sessions_app.api.handler.ApiExceptionHandler",
    "EXCEPTION_FORMATTER_CLASS": "sessions_app.api.handler.ApiExceptionFormatter",
    "ENABLE_IN_DEBUG_FOR_UNHANDLED_EXCEPTIONS": True,
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Sandboxweb",
    "DESCRIPTION": "Run untrusted code in real sandboxes: sessions, executions and their events.",
    "VERSION": __version__,
    "OAS_VERSION": "3.1.1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {
        "persistAuthorization": True,
        "tryItOutEnabled": True,
        "displayRequestDuration": True,
        # Its own default sends the address of every schema that is not local to a validator elsewhere.
        "validatorUrl": None,
    },
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/",
    "TAGS": [{"name": "sessions"}, {"name": "executions"}, {"name": "files"}, {"name": "server"}],
    "ENUM_NAME_OVERRIDES": {
        "SessionStatus": "sessions_app.models.session.Session.Status",
        "TerminationReason": "sessions_app.models.session.Session.Reason",
        "ExecutionStatus": "sessions_app.models.execution.Execution.Status",
        "ServerStatus": ["ok", "degraded", "unavailable"],
        "PartStatus": ["ok", "unavailable"],
        "TerminatedStatus": ["terminated"],
        "ErrorType": ["validation_error", "client_error", "server_error"],
        "SessionEventType": "sessions_app.models.event.SessionEvent.Type",
        "Actor": "sessions_app.models.event.Actor",
        "EventType": ["queued", "started", "stdout", "stderr", "truncated", "result", "error", "exit"],
    },
}

# --- Logs: to standard error, one line an event, and never a secret ---------------------------------------------------

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "sandboxweb.logs.LineFormatter",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"level": LOG_LEVEL, "handlers": [], "propagate": True},
        # A request that the client got wrong is the client's news, not the operator's.
        "django.request": {"level": "ERROR"},
        "daphne.http_protocol": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
    },
}
