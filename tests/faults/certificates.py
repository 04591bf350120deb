"""A certificate of our own for `localhost` with the client context that trusts nothing else; an authority and what it signs."""

import shutil
import ssl
import subprocess
from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


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
    authority = write_authority(directory)
    return authority, *write_signed(directory, "client", "extendedKeyUsage=clientAuth")


def write_authority(directory: Path) -> Path:
    """Make an authority; return the path of its certificate."""
    subject = ("-x509", "-days", "2", "-subj", "/CN=ca")
    _openssl(directory, "req", *KEY, *subject, "-keyout", "ca-key.pem", "-out", "ca.pem")
    return directory / "ca.pem"


def write_signed(directory: Path, name: str, *extensions: str) -> tuple[Path, Path]:
    """Make a certificate that the directory's authority signed; return its path and that of its key."""
    certificate, key, request = f"{name}.pem", f"{name}-key.pem", f"{name}.csr"
    _openssl(directory, "req", *KEY, "-subj", f"/CN={name}", "-keyout", key, "-out", request)
    (directory / "v3").write_text("\n".join(("basicConstraints=CA:FALSE", *extensions)) + "\n")
    signer = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "v3")
    _openssl(directory, "x509", "-req", "-in", request, *signer, "-out", certificate)
    return directory / certificate, directory / key


def _openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)  # noqa: S607


def trusting(core_directory: Path) -> ssl.SSLContext:
    """Return a context that trusts the certificate beside a core's data directory."""
    context = ssl.create_default_context(cafile=str(core_directory / "certificate.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
