# mmpluld in an image: `docker build -t mmpluld .`, then `docker run --rm -v "$PWD:/data" mmpluld detect scan.nii.gz -o out`.
# docs/how_to/install.md says how torch is chosen and how a GPU is used.
ARG PYTHON=3.11
ARG BASE=python:${PYTHON}-slim

# The wheel holds configs, index and weights of the zoo; nothing of the checkout is needed after it.
FROM ${BASE} AS wheel
RUN pip install --no-cache-dir build
COPY . /source
RUN python -m build --wheel --outdir /dist /source

FROM ${BASE}
# What OpenCV loads; the slim image is without it.
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libxcb1 \
    && rm -rf /var/lib/apt/lists/*
# Of requirements.txt only what is pinned there is used; an index with other builds of torch comes before the usual one.
ARG TORCH_INDEX=
COPY requirements.txt /tmp/requirements.txt
RUN grep '^torch==' /tmp/requirements.txt > /tmp/torch.txt \
    && pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r /tmp/torch.txt
COPY --from=wheel /dist /tmp/dist
ARG EXTRAS=lite,dicom
RUN pip install --no-cache-dir --constraint /tmp/requirements.txt "$(ls /tmp/dist/*.whl)[${EXTRAS}]" \
    && rm -r /tmp/dist /tmp/torch.txt /tmp/requirements.txt \
    && mmpluld doctor

# No root, and a home that may be written whoever --user names.
RUN useradd --create-home --uid 1000 mmpluld && chmod 0777 /home/mmpluld && install -d -o mmpluld /data
ENV HOME=/home/mmpluld MPLBACKEND=Agg
USER mmpluld
WORKDIR /data
ENTRYPOINT ["mmpluld"]
CMD ["--help"]
