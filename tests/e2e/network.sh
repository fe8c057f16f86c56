#!/bin/sh
# Runs a command in a network of its own, where pods have addresses that the API accepts (loopback ones it refuses) and
# ports are free. Needs no rights: a user namespace has its own. network.sh COMMAND ARGUMENTS…
set -eu
for tool in unshare ip; do
  command -v $tool >/dev/null || { echo "not run: needs $tool (Debian: util-linux, iproute2)"; exit 1; }
done
exec unshare --user --map-root-user --net sh -euc '
  ip link set lo up
  ip route add local 10.128.0.0/16 dev lo
  exec "$@"' -- "$@"
