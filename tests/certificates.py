"""TLS certificates for servers and clients of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ca.crt``, and ``server`` and ``client`` of this CA, each .crt, .key and .pem.

    The server's is for 127.0.0.1 only; a .pem is a key and its certificate in one file. Made once:
    a Redis does not read a file of the same name again.
    """
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.crt")
    for name, identity in (("server", "127.0.0.1"), ("client", "client.example")):
        issued = ca.issue_cert(identity, common_name=name)
        certificate = issued.cert_chain_pems[0].bytes()
        key = _pkcs8(issued.private_key_pem.bytes())
        (folder / f"{name}.crt").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)
        (folder / f"{name}.pem").write_bytes(key + certificate)
    return folder


def _pkcs8(pem: bytes) -> bytes:
    """The only form of a key that ZooKeeper reads (its PemReader)."""
    key = load_pem_private_key(pem, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
