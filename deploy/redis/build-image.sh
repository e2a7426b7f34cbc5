#!/bin/sh
# Builds a Redis image from Debian's own packages, for hosts that reach no image registry.
#
#   deploy/redis/build-image.sh [TAG]          default: distjob-test-redis:bookworm
#
# Needs root, debootstrap and a Docker engine. Does nothing if the image is there already; remove
# it (`docker rmi`) to build anew. SUITE and MIRROR choose another Debian release or mirror.
set -eu

tag=${1:-distjob-test-redis:bookworm}
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}

if docker image inspect "$tag" >/dev/null 2>&1; then
    echo "$tag is there already"
    exit 0
fi
for tool in debootstrap docker tar; do
    command -v "$tool" >/dev/null || { echo "build-image.sh needs $tool" >&2; exit 1; }
done

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=redis-server "$suite" "$root" "$mirror" >&2

version=$(chroot "$root" redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/')

# What a running server never opens: the image is imported as one layer, so it pays at once.
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists "$root"/usr/share/doc "$root"/usr/share/locale

# The data directory is the working directory, as in the official image; protected mode is off
# because the container's only port is published on loopback by the compose file.
mkdir -p "$root/data"
tar -C "$root" --numeric-owner -c . | docker import \
    --change 'WORKDIR /data' --change 'EXPOSE 6379' \
    --change "ENV REDIS_VERSION=$version" \
    --change 'CMD ["redis-server", "--protected-mode", "no"]' \
    --message "Debian $suite, redis-server" - "$tag"
