"""A certificate of our own for `localhost` with the client context that trusts it and nothing else, and one for a client."""

import shutil
import ssl
import subprocess
from pathlib import Path


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """Make a key and a self-signed certificate; return the paths of the certificate and the key."""
    openssl = shutil.which("openssl")
    assert openssl is not None, "openssl is missing: apt-get install openssl"
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    # A server's certificate and not an authority: a strict client refuses an authority as the server's own.
    kind = ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(
        [*command, *names, *kind, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    return certificate, key


def write_client_certificate(directory: Path) -> tuple[Path, Path, Path]:
    """Make an authority, and a client's certificate and key that it signed; return the paths of all three."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)  # noqa: S607

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca.pem")
    openssl("req", *key, "-subj", "/CN=control-plane", "-keyout", "client-key.pem", "-out", "client.csr")
    (directory / "v3").write_text("basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n")
    openssl(
        "x509", "-req", "-in", "client.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2",
        "-extfile", "v3", "-out", "client.pem",
    )  # fmt: skip
    return directory / "ca.pem", directory / "client.pem", directory / "client-key.pem"


def trusting(core_directory: Path) -> ssl.SSLContext:
    """Return a context that trusts the certificate beside a core's data directory."""
    context = ssl.create_default_context(cafile=str(core_directory / "certificate.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
