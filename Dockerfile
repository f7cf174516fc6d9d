# The workbench in a container, from the same lock as `make repro`:
#
#   docker build --target cpu  -t streamingvlm .          && docker run -it --name lab streamingvlm make repro
#   docker build --target cuda -t streamingvlm:cuda .     && docker run -it --rm --gpus all streamingvlm:cuda streamingvlm doctor
#
# The tag names Python's minor version, as environment.yml does. To pin the very bytes, look the digest up where you trust the registry
# (`docker buildx imagetools inspect python:3.11-slim-bookworm`) and build with --build-arg BASE=python:3.11-slim-bookworm@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS base
# The lock pins what Python needs; of Debian's git and make any version will do.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git make \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 student \
 && install --directory --owner=student --group=student /workbench /records
USER 1000:1000
WORKDIR /workbench
# Where `make` looks for its packages; in the PATH, its commands are found without activating it.
ENV PATH=/workbench/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1
RUN python -m venv .venv
COPY --chown=student:student requirements.txt ./

# The packages are a layer of their own: a change of code does not install them again. The stamp tells `make` that they are there.
FROM base AS cpu
# PyPI's torch for Linux on x86 brings CUDA; this index has the build without it, of the same version.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN python -m pip install --disable-pip-version-check -r requirements.txt
COPY --chown=student:student . .
RUN python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e . \
 && touch .venv/.installed
EXPOSE 8888
CMD ["streamingvlm", "--help"]

# With Ray Serve, for `streamingvlm serve --engine ray` (deploy/kuberay.yaml). A login shell, as KubeRay starts Ray in, sets Debian's PATH.
FROM cpu AS ray
RUN python -m pip install --disable-pip-version-check -r requirements-ray.txt \
 && echo "PATH=/workbench/.venv/bin:\$PATH" >> /home/student/.profile

# torch from PyPI brings its CUDA libraries; the driver comes from the host (NVIDIA Container Toolkit, `docker run --gpus all`).
FROM base AS cuda
RUN python -m pip install --disable-pip-version-check -r requirements.txt
COPY --chown=student:student . .
RUN python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e . \
 && touch .venv/.installed
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8888
CMD ["streamingvlm", "--help"]
