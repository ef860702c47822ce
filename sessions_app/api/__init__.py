"""The REST API: views, serializers and the one place where exceptions become HTTP."""
