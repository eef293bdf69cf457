"""The description of the API. To make it takes half a second, in each process that collects tests of it."""

from app.http.openapi import openapi_document
from app.main import create_app

DESCRIPTION = openapi_document(create_app())
