"""Stores of objects (S3, Google Cloud Storage, Azure, web servers), with the credentials that other tools find."""

from __future__ import annotations

import os
from typing import Any


def object_store(scheme: str, bucket: str, options: dict[str, Any]) -> Any:
    """A bucket or container.

    Args:
        scheme: in lower case: "s3", "s3a", "gs", "gcs", "az", "abfs" and the like.
        bucket: its name; of Azure also `container@account.dfs.core.windows.net`.
        options: of obstore's stores; completed here.
    """
    from obstore.store import AzureStore, GCSStore  # noqa: PLC0415

    if scheme in ("s3", "s3a"):
        return _s3(bucket, options)
    if scheme in ("gs", "gcs"):
        return GCSStore(bucket, **options)
    container, _, host = bucket.partition("@")  # az://container/… or abfs://container@account.dfs.core.windows.net/…
    if host:
        options["account_name"] = host.partition(".")[0]
    return AzureStore(container, **options)


def folder_store(address: str) -> Any:
    """What lies below an address (`s3://`, `gs://`, `az://`, `https://`), as a store whose keys begin there."""
    from obstore.store import HTTPStore  # noqa: PLC0415

    scheme, _, rest = address.partition("://")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        return HTTPStore.from_url(address.rstrip("/"), client_options={"allow_http": scheme == "http"})
    bucket, _, prefix = rest.partition("/")
    return object_store(scheme, bucket, {"client_options": {}, "prefix": prefix.rstrip("/")})


def _s3(bucket: str, options: dict[str, Any]) -> Any:
    """The bucket, with what the usual environment and files say of credentials; without any, as anybody."""
    import boto3  # noqa: PLC0415  (the environment, profiles, single sign-on, roles: as every other tool finds them)
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    from obstore.store import S3Store  # noqa: PLC0415

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options["client_options"]["allow_http"] = (endpoint or "").startswith("http://")
    if endpoint:
        options["endpoint"] = endpoint
    session = boto3.Session()
    options["region"] = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    if session.get_credentials() is None:
        return S3Store(bucket, skip_signature=True, **options)
    return S3Store(bucket, credential_provider=Boto3CredentialProvider(session), **options)
