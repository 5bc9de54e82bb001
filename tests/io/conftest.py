"""Storages to test with: this machine's memory, a folder, and a server that speaks S3."""

import logging
import uuid

import pytest


@pytest.fixture(scope="session")
def s3_server():
    """URL of a server that speaks S3, with its credentials in the environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLEEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "very-secret-key",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield settings["AWS_ENDPOINT_URL"]
    server.stop()


@pytest.fixture
def bucket(s3_server):
    """URL of a fresh bucket."""
    import boto3

    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(params=["memory", "file", "s3"])
def root(request, tmp_path):
    """URL of a fresh library on each kind of storage."""
    if request.param == "memory":
        return f"memory://test-{uuid.uuid4().hex[:12]}/library"
    if request.param == "file":
        return (tmp_path / "storage" / "library").as_uri()
    return f"{request.getfixturevalue('bucket')}/library"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVATAR3D_CACHE", str(tmp_path / "cache"))
