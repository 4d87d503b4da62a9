#!/bin/sh
# What deploy/compose.yml uses of the official PostgreSQL image's contract, around this machine's own PostgreSQL:
# POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, data in /var/lib/postgresql/data, passwords over TCP. For tests only.
set -eu
data=/var/lib/postgresql/data
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 0700 "$data"
    exec setpriv --reuid=postgres --regid=postgres --clear-groups "$0"
fi
if [ ! -s "$data/PG_VERSION" ]; then
    umask 077
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --no-sync -D "$data" --username="$POSTGRES_USER" --pwfile=/tmp/password \
        --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    echo "CREATE DATABASE \"$POSTGRES_DB\";" | postgres --single -D "$data" postgres
fi
exec postgres -D "$data" -c 'listen_addresses=*' -c unix_socket_directories=/var/run/postgresql
