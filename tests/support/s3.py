"""A server that speaks S3, with one bucket."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "checkpoints"


@contextmanager
def s3_server() -> Iterator[Mapping[str, str]]:
    """Yields the environment in which clients find it."""
    import s3fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        s3fs.S3FileSystem(key="any", secret="any", endpoint_url=url).mkdirs(BUCKET, exist_ok=True)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.stop()
