"""PyPI's django-oauth-toolkit in a Django project of one file. Arguments: port, folder, the clients' secret.

`/o/` is the toolkit as it comes. `/livedocs/introspect/` is its introspection with the claims that say whom a
token is for and which tenant it belongs to, added in the place that Django has for it: a subclass of the view.
"""

from __future__ import annotations

import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings

port, folder, secret = int(sys.argv[1]), sys.argv[2], sys.argv[3]
settings.configure(
    SECRET_KEY=secret,
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/db.sqlite3"}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "oauth2_provider"],
    ROOT_URLCONF="__main__",
    USE_TZ=True,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    OAUTH2_PROVIDER={
        "SCOPES": {"livedocs:write": "write every document", "introspection": "ask about tokens"},
        "ACCESS_TOKEN_EXPIRE_SECONDS": 600,
    },
)
django.setup()

from django.core.management import call_command  # noqa: E402 - Django's own order
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils.decorators import method_decorator  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import get_application_model  # noqa: E402
from oauth2_provider.views import IntrospectTokenView  # noqa: E402


@method_decorator(csrf_exempt, name="dispatch")
class Introspection(IntrospectTokenView):
    """The toolkit's answer, with the audience and the tenant of the client."""

    @staticmethod
    def get_token_response(token_value=None):
        answer = IntrospectTokenView.get_token_response(token_value)
        said = json.loads(answer.content)
        if said.get("active") is True:
            said |= {"aud": "livedocs", "tenant": said["client_id"].partition("-")[0]}
        return JsonResponse(said, status=answer.status_code)


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("livedocs/introspect/", Introspection.as_view()),
]

call_command("migrate", verbosity=0)
Application = get_application_model()
for client_id in ("livedocs", "acme-service"):
    Application.objects.create(
        client_id=client_id,
        client_secret=secret,
        hash_client_secret=False,
        name=client_id,
        client_type=Application.CLIENT_CONFIDENTIAL,
        authorization_grant_type=Application.GRANT_CLIENT_CREDENTIALS,
    )


class Quiet(WSGIRequestHandler):
    """A handler whose log says nothing."""

    def log_message(self, *args):
        """Say nothing."""


with make_server("127.0.0.1", port, get_wsgi_application(), handler_class=Quiet) as server:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()
