"""A template for every language that a server may be able to run, and room for the libraries that are asked for most."""

from django.db import migrations

MIB = 1024 * 1024
# Compilers need more than what they compile, and a JVM starts more threads than a script.
LARGE = {"memory_bytes": 1024 * MIB, "pids": 256}
LANGUAGES = {
    "bash": ("Shell scripts.", {}),
    "cpp": ("C++17, compiled by g++.", LARGE),
    "go": ("Go with its standard library.", LARGE),
    "java": ("Java: one file with a main method.", LARGE),
    "javascript": ("JavaScript on Node.js.", {}),
    "r": ("R with its base packages.", {}),
    "ruby": ("Ruby with its standard library.", {}),
}


def add_languages(apps, schema_editor):
    template = apps.get_model("sessions_app", "SandboxTemplate")
    for lang, (description, limits) in LANGUAGES.items():
        if template.objects.filter(name=lang).exists() or template.objects.filter(lang=lang, is_default=True).exists():
            continue
        template.objects.create(
            name=lang, lang=lang, description=description, is_default=True, disk_bytes=512 * MIB, **limits
        )
    # numpy, pandas, matplotlib and scikit-learn do not fit into the 256 MiB of before.
    ours = template.objects.filter(name__in=["python", "python-data"], disk_bytes=256 * MIB)
    ours.update(disk_bytes=1024 * MIB)


class Migration(migrations.Migration):
    dependencies = [("sessions_app", "0003_newest_first")]

    operations = [migrations.RunPython(add_languages, migrations.RunPython.noop, elidable=False)]
