"""Idempotency keys: the same request again gets the first answer again, whoever died meanwhile."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction

from sessions_app import clock
from sessions_app.exceptions import IdempotencyInProgress, IdempotencyMismatch, InvalidInput
from sessions_app.limits import IDEMPOTENCY_TTL_S, MAX_IDEMPOTENCY_KEY_CHARS
from sessions_app.models import IdempotencyRecord

if TYPE_CHECKING:
    from django.contrib.auth.models import User

# A claim that has made nothing after so long belongs to a process that died: making a row takes milliseconds.
STALE = timedelta(seconds=10)


@dataclass(frozen=True)
class Claim:
    """Say what to do with a request: answer from the record, take up what it made, or begin.

    - `answer` is set: give it again.
    - `record.execution` or `record.session` is set: the first request made it and died, or still waits for it; settle
      or read it, and answer from it.
    - else: begin, hand `record` to the service as `claim`, then `finish` or `release` it.
    """

    record: IdempotencyRecord
    answer: tuple[int, Any] | None = None


def fingerprint(*, method: str, path: str, body: bytes) -> str:
    """Return the SHA-256 of a request."""
    digest = hashlib.sha256(f"{method}\n{path}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def claim(*, owner: User, key: str, fingerprint: str) -> Claim:
    """Take a key for a request. Raises IdempotencyMismatch, IdempotencyInProgress or InvalidInput (the key itself)."""
    if not 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS or not key.isprintable():
        raise InvalidInput("Idempotency-Key", f"This must be 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters.")
    for _attempt in range(3):
        try:
            with transaction.atomic():
                record = IdempotencyRecord.objects.create(owner=owner, key=key, fingerprint=fingerprint)
            return Claim(record)
        except IntegrityError:
            known = (
                IdempotencyRecord.objects.filter(owner=owner, key=key)
                .select_related("session__template", "execution__session__template")
                .first()
            )
        if known is None:
            continue  # its request was released between the two questions
        if known.created_at <= clock.now() - timedelta(seconds=IDEMPOTENCY_TTL_S):
            IdempotencyRecord.objects.filter(pk=known.pk, created_at=known.created_at).delete()
            continue
        return _taken(known, fingerprint)
    raise IdempotencyInProgress("Another request with this key is being answered.")


def _taken(known: IdempotencyRecord, fingerprint: str) -> Claim:
    if known.fingerprint != fingerprint:
        raise IdempotencyMismatch("This Idempotency-Key was used with another request.")
    if known.state == IdempotencyRecord.State.DONE:
        return Claim(known, answer=(known.response_status or 200, known.response_body))
    if known.session_id is not None or known.execution_id is not None:
        return Claim(known)
    now = clock.now()
    stale = IdempotencyRecord.objects.filter(
        pk=known.pk,
        state=IdempotencyRecord.State.IN_PROGRESS,
        session=None,
        execution=None,
        claimed_at__lte=now - STALE,
    )
    if stale.update(claimed_at=now) == 1:
        known.claimed_at = now
        return Claim(known)
    raise IdempotencyInProgress("The first request with this Idempotency-Key is still being answered.")


def finish(record: IdempotencyRecord, *, status: int, body: Any) -> None:
    """Keep the answer (`body` as JSON) for repetitions."""
    IdempotencyRecord.objects.filter(pk=record.pk).update(
        state=IdempotencyRecord.State.DONE, response_status=status, response_body=body
    )


def release(record: IdempotencyRecord) -> None:
    """Forget a request that came to nothing, so that a repetition tries anew; not one that another has taken over."""
    record.ours().delete()


def drop_old(*, limit: int) -> int:
    """Delete records past their time, at most `limit`; return how many."""
    horizon = clock.now() - timedelta(seconds=IDEMPOTENCY_TTL_S)
    old = IdempotencyRecord.objects.filter(created_at__lt=horizon).order_by("created_at").values_list("pk", flat=True)
    deleted, _ = IdempotencyRecord.objects.filter(pk__in=list(old[:limit])).delete()
    return deleted
