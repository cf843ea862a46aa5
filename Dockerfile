# Two images: `operator` (no torch) and `runner` (what a worker pod of ours runs).
#
#   docker build --target operator -t ghcr.io/hpstudy/operator:0.1.0 .
#   docker build --target runner -t ghcr.io/hpstudy/runner:0.1.0 --build-arg TORCH_BACKEND=cu128 .
#
# Dependencies and code are layers of their own, so that a changed line of code rebuilds and ships some 100 KB. The
# layer of dependencies depends on the lists of them alone, not on the rest of pyproject.toml.

FROM docker.io/library/python:3.11-slim-bookworm AS base
# A name for the user: some libraries ask who they are. 65532 is the customary "nonroot".
RUN groupadd -g 65532 hpstudy && useradd -u 65532 -g 65532 -M -d /tmp -s /usr/sbin/nologin hpstudy \
    && python -m venv --without-pip /opt/venv
# All that is written goes below /tmp, so that the root file system can be read-only.
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv HOME=/tmp XDG_CACHE_HOME=/tmp/cache \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM base AS requirements
COPY pyproject.toml hack/images/requirements.py /src/
RUN cd /src && python requirements.py operator > /operator.txt \
    && python requirements.py runner ray wandb sigopt s3 gcs > /runner.txt \
    && python requirements.py --overrides > /overrides.txt

# uv lives in the cache mount, and so in no layer. (A bind mount of another stage would be neater, but buildah 1.28
# mounts nothing when that stage came from its cache.)
FROM base AS operator-dependencies
COPY --from=requirements /operator.txt /opt/requirements.txt
RUN --mount=type=cache,id=hpstudy-uv,target=/var/cache/uv \
    uv=/var/cache/uv/0.13.9; [ -x $uv/bin/uv ] || { python -m venv $uv && $uv/bin/pip install -q uv==${uv##*/}; } \
    && $uv/bin/uv pip install -q --system-certs --link-mode copy --cache-dir /var/cache/uv --compile-bytecode \
         -r /opt/requirements.txt \
    # The asynchronous twin of the client and numpy's tests: a fifth of the image, and nothing imports them.
    && cd /opt/venv/lib/python3.*/site-packages && rm -rf kubernetes/aio numpy/tests numpy/*/tests

FROM base AS runner-dependencies
COPY --from=requirements /runner.txt /opt/requirements.txt
COPY --from=requirements /overrides.txt /opt/overrides.txt
# uv's word for where torch comes from: cpu, cu128, auto, ... Empty: the index's torch, which brings CUDA. A torch wheel
# that the build finds in /mnt (podman build --volume WHEELS:/mnt:ro) goes before both.
ARG TORCH_BACKEND=""
RUN --mount=type=cache,id=hpstudy-uv,target=/var/cache/uv \
    uv=/var/cache/uv/0.13.9; [ -x $uv/bin/uv ] || { python -m venv $uv && $uv/bin/pip install -q uv==${uv##*/}; } \
    && set -- -r /opt/requirements.txt --overrides /opt/overrides.txt && for wheel in /mnt/torch-*.whl; do \
         if [ -e "$wheel" ]; then v=${wheel#/mnt/torch-}; set -- "$@" --find-links /mnt "torch==${v%%-*}"; fi; done \
    && $uv/bin/uv pip install -q --system-certs --link-mode copy --cache-dir /var/cache/uv --compile-bytecode \
         ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"} "$@"

FROM base AS package
COPY pyproject.toml README.md LICENSE CHANGELOG.md /src/
COPY runner /src/runner
COPY operator /src/operator
RUN --mount=type=cache,id=hpstudy-uv,target=/var/cache/uv \
    uv=/var/cache/uv/0.13.9; [ -x $uv/bin/uv ] || { python -m venv $uv && $uv/bin/pip install -q uv==${uv##*/}; } \
    && $uv/bin/uv pip install -q --system-certs --link-mode copy --cache-dir /var/cache/uv --compile-bytecode --no-deps /src

FROM operator-dependencies AS operator
COPY --from=package /opt/venv /opt/venv
USER 65532:65532
ENTRYPOINT ["hpstudy-operator"]

FROM runner-dependencies AS runner
COPY --from=package /opt/venv /opt/venv
COPY examples /examples
# So that the paths in the examples are the same here as beside the manifest.
WORKDIR /examples
# Asking whether CUDA is there must not open it in a parent that forks its ranks. Pods share their cores: no thread spins.
ENV HF_HOME=/tmp/huggingface MPLCONFIGDIR=/tmp/matplotlib PYTORCH_NVML_BASED_CUDA_CHECK=1 OMP_WAIT_POLICY=passive
USER 65532:65532
ENTRYPOINT ["hpstudy"]
CMD ["--help"]
