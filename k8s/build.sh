#!/bin/sh
# Builds the image with docker, podman or buildah, whichever is here and works: `make image` calls it, from the
# repository's root. What goes into clusters.yaml as `image` is printed on stdout, everything else on stderr.
#
#   IMAGE           its name, with or without a tag       [bo-sweep:<version of bo-sweep>]
#   PUSH=1          push it to the registry that IMAGE names, and print its digest
#   BASE            an image with Python 3.12 on Debian 12 (bookworm)    [as in k8s/Dockerfile]
#   BASE_DIGEST     sha256:... of BASE                    [that of BASE now, which is told]
#   EXTRA_PACKAGES  more packages of Debian, e.g. g++ for resources.compile
#   BUILDER         docker, podman or buildah             [the first that works]
#   BUILD_OPTIONS   more options of the builder, e.g. "--network host"
set -eu

say() { echo "$@" >&2; }

dockerfile=k8s/Dockerfile
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || true)
if [ -n "$revision" ] && [ -n "$(git status --porcelain 2>/dev/null)" ]; then revision=$revision-changed; fi

image=${IMAGE:-bo-sweep}
case ${image##*/} in
*@*) say "IMAGE $image: a digest is what a build ends with; give a name, with or without a tag"; exit 2 ;;
*:*) ;;
*) image=$image:$version ;;
esac
if [ -n "${PUSH:-}" ] && [ "$image" = "${image#*/}" ]; then
    say "PUSH needs the registry in the name: make image PUSH=1 IMAGE=registry.example.org/$image"
    exit 2
fi

works() { command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1; }
builder=
for name in ${BUILDER:-docker podman buildah}; do
    if works "$name"; then builder=$name; break; fi
done
if [ -z "$builder" ]; then
    say "None of ${BUILDER:-docker, podman and buildah} works here (tried: NAME info). Start or install one of them."
    exit 4
fi

# podman and buildah call it so in any case; a cluster would look for the short name at docker.io.
if [ "$builder" != docker ] && [ "$image" = "${image#*/}" ]; then image=localhost/$image; fi

base=${BASE:-$(sed -n 's/^ARG BASE=//p' $dockerfile | head -n 1)}
digest=${BASE_DIGEST:-}
if [ -z "$digest" ] && [ "$base" = "${base%@sha256:*}" ]; then
    if "$builder" pull -q "$base" >/dev/null; then
        case $builder in
        buildah) digest=$(buildah inspect --type image --format '{{.FromImageDigest}}' "$base") ;;
        *) digest=$("$builder" image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$base") ;;
        esac
        digest=$(echo "$digest" | sed -n 's/^.*\(sha256:[0-9a-f]\{64\}\)$/\1/p' | head -n 1)
    fi
    if [ -n "$digest" ]; then
        say "Base: $base is $digest now. For the same again: BASE_DIGEST=$digest"
    else
        say "Base: $base has no digest here, so this build cannot be repeated exactly. Give BASE_DIGEST=sha256:..."
    fi
fi

# The format of docker, since that of OCI has no health check. buildah makes layers, and keeps them, only when asked.
case $builder in
docker) format= ;;
podman) format="--format docker" ;;
buildah) format="--format docker --layers" ;;
esac
say "Building $image with $builder: about 8 GB, most of it CUDA."
# BUILD_OPTIONS and format are meant to be several words.
# shellcheck disable=SC2086
"$builder" build $format ${BUILD_OPTIONS:-} -f $dockerfile -t "$image" \
    --build-arg "BASE=$base" --build-arg "BASE_DIGEST=$digest" --build-arg "EXTRA_PACKAGES=${EXTRA_PACKAGES:-}" \
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" . >&2

if [ -z "${PUSH:-}" ]; then
    case $builder in
    docker) load="kind load docker-image $image" ;;
    podman) load="podman save -o bo-sweep.tar $image && kind load image-archive bo-sweep.tar" ;;
    buildah) load="buildah push $image docker-archive:bo-sweep.tar:$image && kind load image-archive bo-sweep.tar" ;;
    esac
    say "Not pushed. For kind: $load"
    say "In clusters.yaml (with unpinned_image: true):"
    say "  image: $image"
    say "For a registry: make image PUSH=1 IMAGE=registry.example.org/bo-sweep:$version"
    echo "$image"
    exit
fi
name=${image%:*}
if [ "$builder" = docker ]; then
    docker push "$image" >&2
    known=${name#docker.io/}    # docker leaves its own registry out
    digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$image" |
        sed -n "s|^${known#library/}@||p" | head -n 1)
else
    file=$(mktemp)
    trap 'rm -f "$file"' EXIT
    "$builder" push --digestfile "$file" "$image" >&2
    digest=$(cat "$file")
fi
if [ -z "$digest" ]; then
    say "Pushed, but $builder does not tell the digest. Look it up in the registry: $image"
    exit 4
fi
pushed=$name@$digest
say "Pushed. In clusters.yaml:"
say "  image: $pushed"
echo "$pushed"
