"""The examples of docs/streams.md, run as printed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import pages
from tests.integration.servers import ROOT, Servers

PAGE = ROOT / "docs" / "streams.md"


@pytest.mark.parametrize("language", ["bash", "python"])
def test_every_example_prints_what_the_page_shows(servers: Servers, tmp_path: Path, language: str) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "SANDBOXWEB_URL": servers.app_url,
        "SANDBOXWEB_API_KEY": servers.make_user(f"reader-{os.urandom(4).hex()}"),
    }
    ran = pages.run(pages.examples_of(PAGE), language, env=env, cwd=tmp_path)
    wrong = [f"line {example.line}: {why}" for example, printed in ran if (why := pages.difference(example, printed))]
    assert not wrong, "\n\n".join(wrong)
