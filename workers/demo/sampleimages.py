"""The images that the demo and the tests pull: real ones, small, and the same each time."""

from __future__ import annotations

from workers.demo.images import (
    Image,
    ImageFormat,
    Layer,
    as_json,
    build_artifact,
    build_image,
    build_index,
)
from workers.demo.samplelayers import (
    ALPINE_BASE,
    DEBIAN_BASE,
    DEBIAN_WEB,
    alpine_layer,
    application_layer,
    debian_layer,
    tar_layer,
)

HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
DEFAULT_PAYLOAD = 200_000  # bytes a layer


def debian_image(
    name: str,
    *,
    tag: str = "latest",
    image_format: ImageFormat = ImageFormat.DOCKER,
    architecture: str = "amd64",
    payload: int = DEFAULT_PAYLOAD,
) -> Image:
    """Three layers: Debian's base, a web server installed on it, and an application.

    Images of different names share the first two layers.
    """
    layers = (
        debian_layer(DEBIAN_BASE, architecture=architecture, payload=payload),
        debian_layer(DEBIAN_BASE + DEBIAN_WEB, architecture=architecture, payload=payload),
        application_layer(f"{name}-{architecture}", payload=payload),
    )
    return build_image(name, layers, tag=tag, image_format=image_format, architecture=architecture)


def alpine_image(
    name: str,
    *,
    tag: str = "latest",
    image_format: ImageFormat = ImageFormat.OCI,
    payload: int = DEFAULT_PAYLOAD,
) -> Image:
    """Two layers: Alpine's base and an application."""
    layers = (
        alpine_layer(ALPINE_BASE, payload=payload),
        application_layer(name, payload=payload),
    )
    return build_image(name, layers, tag=tag, image_format=image_format)


def images_sharing_last_layer(
    first: str, second: str, *, payload: int = DEFAULT_PAYLOAD
) -> tuple[Image, Image]:
    """A Debian and an Alpine image that have nothing in common but their last layer."""
    shared = application_layer("shared", payload=payload)
    debian: list[Layer] = [debian_layer(DEBIAN_BASE, payload=payload + 1), shared]
    alpine: list[Layer] = [alpine_layer(ALPINE_BASE, payload=payload + 1), shared]
    return build_image(first, debian), build_image(second, alpine)


def multi_platform_image(
    name: str,
    *,
    tag: str = "latest",
    image_format: ImageFormat = ImageFormat.DOCKER,
    payload: int = DEFAULT_PAYLOAD,
) -> Image:
    """A manifest list with two children, for amd64 and arm64, that share no layer."""
    children = [
        (
            architecture,
            debian_image(
                name,
                tag=tag,
                image_format=image_format,
                architecture=architecture,
                payload=payload,
            ),
        )
        for architecture in ("amd64", "arm64")
    ]
    return build_index(name, children, tag=tag, image_format=image_format)


def helm_chart(name: str, *, tag: str = "0.1.0") -> Image:
    """A Helm chart as `helm push` stores it: an OCI manifest that no scanner can index."""
    chart = name.rpartition("/")[2]
    metadata = {"apiVersion": "v2", "name": chart, "version": tag, "type": "application"}
    template = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": chart},
        "data": {"replicas": "{{ .Values.replicas }}"},
    }
    files = {
        f"{chart}/Chart.yaml": as_json(metadata),  # JSON is YAML
        f"{chart}/values.yaml": b"replicas: 1\n",
        f"{chart}/templates/configmap.yaml": as_json(template),
    }
    return build_artifact(
        name,
        tag=tag,
        config=(HELM_CONFIG, as_json(metadata)),
        layer=(HELM_CHART, tar_layer(files).blob.read()),
    )
