# Stand-in for the official PostgreSQL image where it cannot be pulled. Made and used by `cargo xtask image --check` only.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
RUN useradd --system --home-dir /var/lib/postgresql --shell /bin/sh postgres
# The server of this machine with the libraries it needs, made by xtask.
ADD postgres.tar /
RUN install -d -o postgres -g postgres /var/lib/postgresql /var/run/postgresql
COPY postgres-entrypoint.sh /usr/local/bin/
ARG BIN
ENV PATH=${BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
ENTRYPOINT ["postgres-entrypoint.sh"]
