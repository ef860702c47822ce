"""Rich results in the admin: shown, and powerless."""

from __future__ import annotations

from sessions_app.admin.results import MAX_SHOWN, shown_results

HOSTILE = '"><script>alert(1)</script>'


def test_a_picture_is_shown_as_one() -> None:
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in shown_results([{"png": "iVBORw0KGgo=", "text": "<Figure>"}])


def test_a_page_is_shown_in_a_sandbox_without_rights() -> None:
    shown = shown_results([{"html": f"<b>{HOSTILE}</b>", "text": "b"}])
    assert '<iframe sandbox="" srcdoc="&lt;b&gt;&quot;&gt;&lt;script&gt;' in shown
    assert "<script>" not in shown


def test_what_claims_to_be_a_picture_and_is_none_is_not_shown_as_one() -> None:
    shown = shown_results([{"png": HOSTILE, "text": HOSTILE}])
    assert "<img" not in shown
    assert "<script>" not in shown


def test_text_and_data_are_escaped() -> None:
    for result in ({"text": HOSTILE}, {"svg": HOSTILE}, {"json": {HOSTILE: HOSTILE}}, {"markdown": HOSTILE}):
        assert "<script>" not in shown_results([result])


def test_only_the_first_of_many_are_shown() -> None:
    shown = shown_results([{"text": f"result {number}"} for number in range(MAX_SHOWN + 5)])
    assert f"result {MAX_SHOWN - 1}" in shown
    assert f"result {MAX_SHOWN}" not in shown
    assert "5 more are not shown" in shown
