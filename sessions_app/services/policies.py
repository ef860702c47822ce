"""Which time-out policy holds for whom, and what it makes of a wish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import BigIntegerField, QuerySet, Subquery
from django.db.models.functions import Coalesce

from sessions_app.limits import check_seconds
from sessions_app.models import SandboxTemplate, Session, TimeoutPolicy, UserPolicy
from sessions_app.prepared import Parameter, Prepared

DURATIONS = ("idle_timeout", "max_lifetime", "execution_timeout")


def _narrowest() -> QuerySet[TimeoutPolicy]:
    own = UserPolicy.objects.filter(user=Parameter("owner")).values("policy")
    default = TimeoutPolicy.objects.filter(is_default=True).values("pk")
    choice = Coalesce(Subquery(own), Parameter("named"), Subquery(default), output_field=BigIntegerField())
    return TimeoutPolicy.objects.filter(pk=choice)


NARROWEST: Prepared[TimeoutPolicy] = Prepared(
    _narrowest,
    owner=lambda: UserPolicy._meta.get_field("user"),
    named=lambda: SandboxTemplate._meta.get_field("timeout_policy"),
)


def policy_for(*, owner_id: int, template: SandboxTemplate) -> TimeoutPolicy:
    """Return the user's own policy, else the template's, else the default one.

    The user's wins because it is the narrower word: it says what one person may do, whatever they make sessions from.
    """
    return NARROWEST.first(owner=owner_id, named=template.timeout_policy_id) or TimeoutPolicy()


def ceiling(policy: TimeoutPolicy, name: str) -> int:
    """Return the policy's ceiling of a duration, in seconds."""
    return int(getattr(policy, f"{name}_max_s"))


def terms(policy: TimeoutPolicy, wishes: Mapping[str, int | None], *, kept: Iterable[str] = ()) -> dict[str, Any]:
    """Return a session's columns under a policy.

    A wish (seconds) above its ceiling, or not above 0, is an InvalidInput that names the field; one that is None is
    the policy's default. Those named in `kept` were wished for earlier: they are cut to the ceiling, never refused.
    """
    values: dict[str, int] = {}
    for name in DURATIONS:
        wish = wishes.get(name)
        if wish is None:
            values[f"{name}_s"] = getattr(policy, f"{name}_default_s")
        elif name in kept:
            values[f"{name}_s"] = min(wish, ceiling(policy, name))
        else:
            check_seconds(name, wish, ceiling=ceiling(policy, name))
            values[f"{name}_s"] = wish
    chosen = [name for name in DURATIONS if wishes.get(name) is not None]
    return {**values, "chosen_timeouts": chosen, "grace_s": grace(policy, values)}


def renewed_terms(session: Session, policy: TimeoutPolicy, *, idle_timeout: int | None) -> dict[str, Any]:
    """Return a session's columns under the policy as it is now: an administrator may have changed it since."""
    wishes = {name: getattr(session, f"{name}_s") for name in session.chosen_timeouts}
    kept = set(wishes)
    if idle_timeout is not None:
        wishes["idle_timeout"] = idle_timeout
        kept.discard("idle_timeout")
    return terms(policy, wishes, kept=kept)


def changed_terms(session: Session, policy: TimeoutPolicy, wishes: Mapping[str, int]) -> dict[str, Any]:
    """Return the columns of a session that new wishes (seconds) change; raise InvalidInput as `terms` does."""
    for name, wish in wishes.items():
        check_seconds(name, wish, ceiling=ceiling(policy, name))
    columns = {f"{name}_s": wish for name, wish in wishes.items()}
    held = {"idle_timeout_s": session.idle_timeout_s, "max_lifetime_s": session.max_lifetime_s, **columns}
    chosen = [name for name in DURATIONS if name in wishes or name in session.chosen_timeouts]
    return {**columns, "chosen_timeouts": chosen, "grace_s": grace(policy, held)}


def grace(policy: TimeoutPolicy, durations: Mapping[str, int]) -> int:
    """Return how many seconds before its end a session is announced as expiring.

    At most half of what it may live for: a session is not called expiring from its beginning.
    """
    return min(policy.grace_s, durations["idle_timeout_s"] // 2, durations["max_lifetime_s"] // 2)
