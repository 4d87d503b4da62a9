#!/bin/sh
# Runs a test binary in the network namespace it was started in, after switching its loopback on.
set -eu
ip link set lo up
exec "$@"
