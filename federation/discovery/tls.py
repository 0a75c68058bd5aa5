"""Mutual TLS of the xDS port, following the files it is made from.

Decides: that files which cannot be used (one is missing, or the key is of another certificate, as
in the middle of a rotation) leave the certificate in force as it is.
Leaves to others: which clients are let in (``server``), rotating the files.
Invariants: a handshake uses the newest usable files; key material is never logged.
"""

from __future__ import annotations

import logging
import ssl

import grpc

from federation.discovery.settings import TlsFiles

log = logging.getLogger("federation.discovery")

_Pem = tuple[bytes, bytes, bytes]
"""Private key, certificate chain, certificate authorities."""


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that demand a certificate of the client. Raises ``OSError`` for unusable files.

    gRPC asks for the configuration at every handshake; a cluster's gateways make few.
    """
    follower = _Follower(files)
    return grpc.dynamic_ssl_server_credentials(
        follower.configuration, follower.newest, require_client_authentication=True
    )


class _Follower:
    """Remembers what is in force, to tell a change of the files."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._pem = _read(files)
        self.configuration = _configuration(self._pem)

    def newest(self) -> grpc.ServerCertificateConfiguration:
        """The configuration of the newest usable files. Called on a thread of gRPC's."""
        try:
            pem = _read(self._files)
        except OSError as failure:
            log.warning("xds certificate not renewed", extra={"why": str(failure)})
            return self.configuration
        if pem != self._pem:
            self._pem = pem
            self.configuration = _configuration(pem)
            certificate = str(self._files.certificate)
            log.info("xds certificate renewed", extra={"certificate": certificate})
        return self.configuration


def _configuration(pem: _Pem) -> grpc.ServerCertificateConfiguration:
    private_key, certificate, authorities = pem
    return grpc.ssl_server_certificate_configuration(
        [(private_key, certificate)], root_certificates=authorities
    )


def _read(files: TlsFiles) -> _Pem:
    """The files' contents, of which the standard library says that they fit together."""
    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password is given so that an encrypted key is an error, not a question on the terminal.
        trial.load_cert_chain(files.certificate, files.private_key, password="")
        trial.load_verify_locations(files.client_ca)
    except ssl.SSLError as failure:
        raise OSError(
            f"{files.certificate}, {files.private_key} and {files.client_ca} are not a "
            f"certificate, its key, and certificate authorities: {failure.reason or failure}"
        ) from failure
    return (
        files.private_key.read_bytes(),
        files.certificate.read_bytes(),
        files.client_ca.read_bytes(),
    )
