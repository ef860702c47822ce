"""The words and examples of `/docs` about files."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers

from sessions_app.api import answers
from sessions_app.api.docs import answer, errors, sent

ENTRY_EXAMPLE: dict[str, Any] = {
    "name": "data.csv",
    "path": "in/data.csv",
    "type": "file",
    "size": 1048576,
    "mode": "0644",
    "mtime": "2026-01-05T10:00:02+00:00",
}
LISTING_EXAMPLE: dict[str, Any] = {
    "path": "in",
    "entries": [ENTRY_EXAMPLE],
    "count": 1,
    "truncated": False,
    "next_offset": None,
}


class EntryAnswer(serializers.Serializer[Any]):
    """A file, directory or link."""

    name = serializers.CharField()
    path = serializers.CharField(help_text="Relative to the workspace, `/sandbox`.")
    type = serializers.ChoiceField(["file", "directory", "link", "other"])
    size = serializers.IntegerField(help_text="Bytes.")
    mode = serializers.CharField(help_text="Permissions, octal.")
    mtime = serializers.DateTimeField(help_text="When its content changed last.")
    target = serializers.CharField(required=False, help_text="Where a link leads to.")
    encoded_path = serializers.CharField(
        required=False, help_text="Of a name that is no UTF-8: the path as it stands in an address."
    )


class ListingAnswer(serializers.Serializer[Any]):
    """The entries of a directory, by name."""

    path = serializers.CharField()
    entries = EntryAnswer(many=True)
    count = serializers.IntegerField(help_text="How many entries the directory has.")
    truncated = serializers.BooleanField(help_text="Whether there are more; go on at `offset=next_offset`.")
    next_offset = serializers.IntegerField(allow_null=True)


class UnpackedAnswer(serializers.Serializer[Any]):
    """An archive that was unpacked."""

    path = serializers.CharField()
    members = serializers.IntegerField(help_text="How many members the archive had.")


class ArtifactAnswer(answers.KeptArtifact):
    """Bytes that an execution left, with whose they are and until when."""

    sha256 = serializers.CharField()
    execution_id = serializers.UUIDField(allow_null=True)
    session_id = serializers.UUIDField(allow_null=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True, help_text="When it is removed.")


class MakeDirectory(serializers.Serializer[Any]):
    """What to make."""

    type = serializers.ChoiceField(["directory"])


class MoveFile(serializers.Serializer[Any]):
    """Where to."""

    path = serializers.CharField(help_text="The new path, relative to the workspace.")
    overwrite = serializers.BooleanField(default=False, help_text="Replace a file that is there already.")


BYTES = {"application/octet-stream": OpenApiTypes.BINARY}
FAILURES = (400, 401, 404, 409, 410, 422, 429, 502, 503)
ARCHIVE = OpenApiParameter("archive", enum=["tar", "zip"], description="Load the whole directory as an archive.")
CONTENT: dict[Any, Any] = {
    (200, "application/octet-stream"): OpenApiTypes.BINARY,
    (206, "application/octet-stream"): OpenApiTypes.BINARY,
    304: OpenApiResponse(description="It is as the `ETag` in `If-None-Match` says."),
    416: OpenApiResponse(answers.ErrorAnswer, description="The range begins behind the file's end."),
}

list_files = extend_schema(
    operation_id="list_files",
    tags=["files"],
    summary="List a directory of the workspace",
    parameters=[
        OpenApiParameter("path", description="The directory, relative to the workspace; the workspace if left out."),
        OpenApiParameter("limit", OpenApiTypes.INT, description="Entries at most; 1000 if left out, up to 10000."),
        OpenApiParameter("offset", OpenApiTypes.INT, description="How many entries to leave out."),
        ARCHIVE,
    ],
    responses={
        (200, "application/json"): answer(ListingAnswer, "The entries.", LISTING_EXAMPLE),
        (200, "application/x-tar"): OpenApiTypes.BINARY,
        (200, "application/zip"): OpenApiTypes.BINARY,
        **errors(*FAILURES),
    },
)
unpack_files = extend_schema(
    operation_id="unpack_files",
    tags=["files"],
    summary="Unpack a tar archive in the workspace",
    description="Members that would lie outside, links that lead out, devices and sparse files are refused.",
    parameters=[
        OpenApiParameter("path", description="The directory to unpack it in; the workspace if left out."),
        OpenApiParameter("archive", enum=["tar"], required=True),
    ],
    request={"application/x-tar": OpenApiTypes.BINARY},
    responses={
        200: answer(UnpackedAnswer, "It was unpacked.", {"path": "in", "members": 12}),
        **errors(*FAILURES, 413),
    },
)
get_file = extend_schema(
    operation_id="get_file",
    tags=["files"],
    summary="Download a file",
    description="One `Range` is answered with a part, `If-None-Match` with 304. A directory comes with `archive`.",
    parameters=[
        OpenApiParameter("Range", location=OpenApiParameter.HEADER, description="For example `bytes=0-1023`."),
        OpenApiParameter("stat", OpenApiTypes.BOOL, description="Describe it in JSON instead."),
        OpenApiParameter("list", OpenApiTypes.BOOL, description="List the directory instead."),
        ARCHIVE,
    ],
    responses={**CONTENT, (200, "application/json"): EntryAnswer, **errors(*FAILURES)},
)
head_file = extend_schema(exclude=True)
put_file = extend_schema(
    operation_id="put_file",
    tags=["files"],
    summary="Upload a file",
    description=(
        "The body is the file. Directories above it are made. It is there whole or not at all: an upload that breaks "
        "off changes nothing. With `archive=tar` the body is unpacked into the directory."
    ),
    parameters=[
        OpenApiParameter("mode", description="Permissions, octal, up to 777; 644 if left out."),
        OpenApiParameter("archive", enum=["tar"]),
    ],
    request=BYTES,
    responses={
        200: answer(EntryAnswer, "It was replaced.", ENTRY_EXAMPLE),
        201: answer(EntryAnswer, "It is new.", ENTRY_EXAMPLE),
        **errors(*FAILURES, 413),
    },
)
make_directory = extend_schema(
    operation_id="make_directory",
    tags=["files"],
    summary="Make a directory, with those above it",
    request=MakeDirectory,
    examples=[sent("A directory", type="directory")],
    responses={
        200: answer(EntryAnswer, "It was there.", {**ENTRY_EXAMPLE, "type": "directory"}),
        201: answer(EntryAnswer, "It is new.", {**ENTRY_EXAMPLE, "type": "directory"}),
        **errors(*FAILURES),
    },
)
move_file = extend_schema(
    operation_id="move_file",
    tags=["files"],
    summary="Move a file, directory or link",
    request=MoveFile,
    examples=[sent("A new name", path="out/data.csv")],
    responses={200: answer(EntryAnswer, "It is there now.", ENTRY_EXAMPLE), **errors(*FAILURES)},
)
delete_file = extend_schema(
    operation_id="delete_file",
    tags=["files"],
    summary="Remove a file, directory or link",
    parameters=[OpenApiParameter("recursive", OpenApiTypes.BOOL, description="Also a directory that is not empty.")],
    responses={204: None, **errors(*FAILURES)},
)
list_artifacts = extend_schema(
    operation_id="list_artifacts",
    tags=["files"],
    summary="List what a session's executions left",
    description="Pictures, tables and documents that code made or changed are kept, also when the session has ended.",
    responses={200: ArtifactAnswer(many=True), **errors(400, 401, 404)},
)
get_artifact = extend_schema(
    operation_id="get_artifact",
    tags=["files"],
    summary="Download an artifact",
    responses={(200, "application/octet-stream"): OpenApiTypes.BINARY, **errors(401, 404)},
)
