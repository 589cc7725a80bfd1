# Predicting, in a container without network or root:
#
#   docker build -t wsiseg .
#   docker run --rm --network none -v "$PWD:/data" wsiseg predict slide.svs --out map.zarr
#
# With CUDA (the host needs NVIDIA's container toolkit). The libraries come with PyTorch's own packages, so the base
# stays; TORCH_BACKEND is a name of uv's --torch-backend:
#
#   docker build -t wsiseg:cuda --build-arg TORCH_BACKEND=cu130 .
#   docker run --rm --gpus all -v "$PWD:/data" wsiseg:cuda predict slide.svs --out map.zarr
#
# EXTRAS adds extras: --build-arg EXTRAS=openvino,remote. Results belong to user 1000; with another, `docker run --user`.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_BACKEND=cpu
ARG EXTRAS=
# No exact versions: pyproject.toml has the ranges, and a rebuild is to take what mends them.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir uv && python -m venv /opt/wsiseg
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY wsiseg wsiseg
RUN uv pip install --no-config --no-cache --python /opt/wsiseg/bin/python \
    --torch-backend "${TORCH_BACKEND}" ".${EXTRAS:+[${EXTRAS}]}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/wsiseg /opt/wsiseg
RUN useradd --create-home --uid 1000 wsiseg
USER 1000
ENV PATH=/opt/wsiseg/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["wsiseg"]
CMD ["--help"]
