"""What an administrator sees in a real browser."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.integration.servers import ADMIN, PASSWORD, Servers

pytestmark = [pytest.mark.browser]


@pytest.fixture
def admin(servers: Servers, page: Page) -> Page:
    """A browser whose user is logged in to the admin."""
    page.goto(f"{servers.app_url}/admin/")
    page.fill("input[name=username]", ADMIN)
    page.fill("input[name=password]", PASSWORD)
    page.click("[type=submit]")
    expect(page.locator("#user-tools")).to_be_visible()
    return page


def test_a_session_is_shown_with_its_code_output_and_events(
    servers: Servers, api: httpx.Client, session_id: str, admin: Page
) -> None:
    api.post(f"/sessions/{session_id}/execute", json={"code": "print('shown in the', 'admin')"})
    api.delete(f"/sessions/{session_id}")
    admin.goto(f"{servers.app_url}/admin/sessions_app/session/")
    expect(admin.locator("#result_list")).to_contain_text("terminated", ignore_case=True)
    admin.goto(f"{servers.app_url}/admin/sessions_app/session/{session_id}/change/")
    text = admin.locator("body").inner_text()
    assert "print('shown in the', 'admin')" in text
    assert "shown in the admin" in text
    assert "succeeded" in text.lower()
    for word in ("active", "terminated", "user"):
        assert word in text.lower()


def test_every_list_of_the_admin_opens(servers: Servers, admin: Page) -> None:
    admin.goto(f"{servers.app_url}/admin/")
    links = {link.get_attribute("href") for link in admin.locator("#content a[href^='/admin/sessions_app/']").all()}
    lists = {link for link in links if link and link.count("/") == 4}
    assert len(lists) >= 6
    for path in lists:
        answer = admin.goto(f"{servers.app_url}{path}")
        assert answer is not None
        assert answer.status == 200


def test_the_api_documentation_needs_no_other_host(servers: Servers, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{servers.app_url}/docs")
    expect(page.locator("#swagger-ui")).to_contain_text("/sandbox/execute")
    assert [url for url in asked if not url.startswith((servers.app_url, "data:", "blob:"))] == []
