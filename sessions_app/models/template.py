"""SandboxTemplate: what a session is made from."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q

from sessions_app.exceptions import InvalidInput
from sessions_app.limits import MIB, check_env, check_libraries
from sessions_app.models.policy import TimeoutPolicy
from sessions_app.querysets import SandboxTemplateQuerySet


class SandboxTemplate(models.Model):
    """Name a language with its image, limits, network policy, preloaded libraries and warm pool."""

    class Network(models.TextChoices):
        NONE = "none", "None: only the loopback interface"
        HOST = "host", "The host's network"

    name = models.SlugField(max_length=63, unique=True)
    lang = models.CharField("language", max_length=32, default="python")
    description = models.TextField(blank=True)
    is_default = models.BooleanField(
        default=False, help_text="Taken when a session names the language only; one template a language."
    )
    is_enabled = models.BooleanField(default=True)

    image = models.CharField(
        max_length=255, blank=True, help_text="For Docker and Podman; empty: the server's image for the language."
    )
    memory_bytes = models.PositiveBigIntegerField(default=512 * MIB, validators=[MinValueValidator(16 * MIB)])
    cpus = models.FloatField("CPUs", default=1.0, validators=[MinValueValidator(0.05), MaxValueValidator(1024)])
    pids = models.PositiveIntegerField("processes", default=128, validators=[MinValueValidator(8)])
    disk_bytes = models.PositiveBigIntegerField(default=256 * MIB, validators=[MinValueValidator(1 * MIB)])
    network = models.CharField(max_length=16, choices=Network, default=Network.NONE)
    env = models.JSONField("environment", default=dict, blank=True)
    libraries = models.JSONField(default=list, blank=True, help_text="Installed in every sandbox: a list of names.")
    preload = models.JSONField(
        default=list, blank=True, help_text="Modules that the sandbox's interpreter has imported before code runs."
    )
    keep_template = models.BooleanField(default=False, help_text="Leave the image in place when the sandbox ends.")

    warm_pool_size = models.PositiveSmallIntegerField(
        default=0, validators=[MaxValueValidator(1000)], help_text="Sandboxes kept ready before anyone asks."
    )
    timeout_policy = models.ForeignKey(
        TimeoutPolicy,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        help_text="Empty: the default policy. A policy of the user's own goes before it.",
    )

    objects = SandboxTemplateQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["lang"], condition=Q(is_default=True), name="template_one_default_a_lang"),
            models.CheckConstraint(
                condition=Q(memory_bytes__gt=0) & Q(cpus__gt=0) & Q(pids__gt=0) & Q(disk_bytes__gt=0),
                name="template_limits_positive",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Refuse JSON of another shape than the sandbox takes."""
        _check_names("preload", self.preload)
        _check_names("libraries", self.libraries)
        if not isinstance(self.env, dict) or not all(isinstance(value, str) for value in self.env.values()):
            raise ValidationError({"env": "This must be an object of text values."})
        try:
            check_libraries(self.libraries)
            check_env(self.env)
        except InvalidInput as error:
            raise ValidationError({error.field: error.message}) from error
        if self.is_default and not self.is_enabled:
            raise ValidationError({"is_enabled": "The default template of a language must be enabled."})

    def spec(self, *, keep_template: bool = False) -> dict[str, Any]:
        """Return what the proxy makes a sandbox from; the same for the pool and for a session, so that they match."""
        return {
            "template": self.name,
            "lang": self.lang,
            "image": self.image or None,
            "limits": {
                "memory_bytes": self.memory_bytes,
                "cpus": self.cpus,
                "pids": self.pids,
                "disk_bytes": self.disk_bytes,
            },
            "network": self.network,
            "preload": list(self.preload),
            "libraries": list(self.libraries),
            "keep_template": self.keep_template or keep_template,
        }


def _check_names(field: str, value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ValidationError({field: "This must be a list of names."})
