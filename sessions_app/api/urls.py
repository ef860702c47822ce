"""The API's addresses; paths bear no trailing slash."""

from __future__ import annotations

from django.urls import path, register_converter
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from sessions_app.api import artifacts, contexts, executions, files, server, session_events, sessions, stdin, streams

register_converter(files.AnyPath, "any")

urlpatterns = [
    path("", server.Health.as_view(), name="health"),
    path("languages", server.Languages.as_view(), name="languages"),
    path("templates", server.Templates.as_view(), name="templates"),
    path("metrics", server.Metrics.as_view(), name="metrics"),
    path("sessions", sessions.SessionList.as_view(), name="sessions"),
    path("sessions/<str:session_id>", sessions.SessionDetail.as_view(), name="session"),
    path("sessions/<str:session_id>/renew", sessions.SessionRenew.as_view(), name="session-renew"),
    path("sessions/<str:session_id>/events", session_events.SessionEvents.as_view(), name="session-events"),
    path("sessions/<str:session_id>/execute", executions.ExecuteInSession.as_view(), name="execute"),
    path("sessions/<str:session_id>/executions", executions.SessionExecutions.as_view(), name="session-executions"),
    path("sessions/<str:session_id>/files", files.SessionFiles.as_view(), name="files"),
    path("sessions/<str:session_id>/files/<any:path>", files.SessionFile.as_view(), name="file"),
    path("sessions/<str:session_id>/contexts", contexts.ContextList.as_view(), name="contexts"),
    path("sessions/<str:session_id>/contexts/<str:context_id>", contexts.ContextDetail.as_view(), name="context"),
    path(
        "sessions/<str:session_id>/contexts/<str:context_id>/restart",
        contexts.ContextRestart.as_view(),
        name="context-restart",
    ),
    path(
        "sessions/<str:session_id>/contexts/<str:context_id>/interrupt",
        contexts.ContextInterrupt.as_view(),
        name="context-interrupt",
    ),
    path("sessions/<str:session_id>/artifacts", artifacts.SessionArtifacts.as_view(), name="artifacts"),
    path("artifacts/<str:artifact_id>", artifacts.ArtifactContent.as_view(), name="artifact"),
    path("executions/<str:execution_id>", executions.ExecutionDetail.as_view(), name="execution"),
    path("executions/<str:execution_id>/events", streams.ExecutionEvents.as_view(), name="execution-events"),
    path("executions/<str:execution_id>/stdin", stdin.ExecutionStdin.as_view(), name="execution-stdin"),
    path("executions/<str:execution_id>/cancel", executions.ExecutionCancel.as_view(), name="execution-cancel"),
    path("sandbox/execute", executions.RunSnippet.as_view(), name="sandbox-execute"),
    path("schema", SpectacularAPIView.as_view(), name="schema"),
    path("docs", SpectacularSwaggerView.as_view(url_name="schema"), name="docs"),
]
