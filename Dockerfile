# syntax=docker/dockerfile:1
# Predicting, in a container without network or root:
#
#   docker build -t wsiseg .
#   docker run --rm --network none -v "$PWD:/data" wsiseg predict slide.svs --out map.zarr
#
# With CUDA (the host needs NVIDIA's container toolkit): the libraries come with PyTorch's own packages, so the base stays.
#
#   docker build -t wsiseg:cuda --build-arg TORCH_INDEX= .
#   docker run --rm --gpus all -v "$PWD:/data" wsiseg:cuda predict slide.svs --out map.zarr
#
# EXTRAS adds extras, for example --build-arg EXTRAS=openvino,remote,train.

ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/wsiseg
ENV PATH=/opt/wsiseg/bin:$PATH
# No exact versions here: pyproject.toml has the ranges, and a rebuild is to take what mends them.
# First what changes least: torch alone, from PyTorch's CPU index or, with CUDA, from the default one.
# hadolint ignore=DL3013
RUN pip install "torch>=2.8" "torchvision>=0.23" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY wsiseg wsiseg
# hadolint ignore=DL3013
RUN pip install ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim
COPY --from=build /opt/wsiseg /opt/wsiseg
RUN useradd --create-home --uid 1000 wsiseg
USER 1000
ENV PATH=/opt/wsiseg/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["wsiseg"]
CMD ["--help"]
