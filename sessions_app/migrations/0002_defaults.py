"""What a new installation starts with: one policy and the Python templates."""

from django.db import migrations

MODULES_OF_DATA_WORK = ["numpy", "pandas", "matplotlib.pyplot"]


def add_defaults(apps, schema_editor):
    policy = apps.get_model("sessions_app", "TimeoutPolicy")
    template = apps.get_model("sessions_app", "SandboxTemplate")
    policy.objects.get_or_create(name="standard", defaults={"is_default": True})
    template.objects.get_or_create(
        name="python",
        defaults={
            "lang": "python",
            "description": "Python with its standard library.",
            "is_default": True,
            "warm_pool_size": 2,
        },
    )
    template.objects.get_or_create(
        name="python-data",
        defaults={
            "lang": "python",
            "description": "Python with numpy, pandas and matplotlib installed and already imported.",
            "image": "sandboxweb-python-data",
            "preload": MODULES_OF_DATA_WORK,
            "memory_bytes": 1024 * 1024 * 1024,
        },
    )


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0001_initial")]

    operations = [migrations.RunPython(add_defaults, migrations.RunPython.noop, elidable=False)]
