"""The standalone HTTP service that does every sandbox operation with llm-sandbox."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sandboxweb")
except PackageNotFoundError:
    # A bare checkout is not installed.
    __version__ = "0.1.0"
