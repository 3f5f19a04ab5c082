#!/bin/sh
# pip, with a private CA and configuration where the build was given them as secrets, and with the
# wheels of the wheels stage.
set -eu
if [ -f /run/secrets/ca_bundle ]; then
    export PIP_CERT=/run/secrets/ca_bundle SSL_CERT_FILE=/run/secrets/ca_bundle \
        REQUESTS_CA_BUNDLE=/run/secrets/ca_bundle
fi
if [ -f /run/secrets/pip_conf ]; then
    export PIP_CONFIG_FILE=/run/secrets/pip_conf
fi
exec python -m pip "$@"
