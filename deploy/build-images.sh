#!/bin/sh
# Builds images of the servers from Debian's packages, for hosts that reach no image registry.
#
#   deploy/build-images.sh [redis|etcd|zookeeper|python|libvirt ...]  default: the first three
#
# Makes distjob-redis:debian, distjob-etcd:debian and distjob-zookeeper:debian; the compose files
# here run them as they run the official ones, e.g. with DISTJOB_REDIS_IMAGE=distjob-redis:debian.
# distjob-python:debian is what deploy/serve/Dockerfile may start from, and distjob-libvirt:debian, libvirt's
# daemon and its Python, is what docs/examples/control-plane runs in.
# Needs root, debootstrap and a Docker engine. An image that is there already is left alone; remove
# it (`docker rmi`) to build anew. SUITE and MIRROR choose another Debian release or mirror.
set -eu

suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
here=$(dirname "$0")

missing=""
for kind in ${*:-redis etcd zookeeper}; do
    case $kind in redis | etcd | zookeeper | python | libvirt) ;; *) echo "what is $kind? redis, etcd, zookeeper, python or libvirt" >&2; exit 2 ;; esac
    if docker image inspect "distjob-$kind:debian" >/dev/null 2>&1; then
        echo "distjob-$kind:debian is there already"
    else
        missing="$missing $kind"
    fi
done
[ -n "$missing" ] || exit 0
for tool in debootstrap docker tar; do
    command -v "$tool" >/dev/null || { echo "build-images.sh needs $tool" >&2; exit 1; }
done

work=$(mktemp -d)
chmod 755 "$work"  # apt downloads as a user of its own
tidy() {
    for root in "$work"/*; do
        if mountpoint -q "$root/proc"; then umount "$root/proc"; fi
    done
    rm -rf "$work"
}
trap tidy EXIT
trap 'exit 1' INT TERM

install() {  # install ROOT PACKAGE...
    root=$1; shift
    mount -t proc proc "$root/proc"  # a JRE sets itself up by running
    DEBIAN_FRONTEND=noninteractive chroot "$root" apt-get -o Dpkg::Options::=--force-unsafe-io \
        install -q -y --no-install-recommends "$@" >&2
    umount "$root/proc"
}

import() {  # import KIND ROOT VERSION [CHANGE...]; what a running server never opens stays outside
    kind=$1; root=$2; version=$3; shift 3
    (cd "$root" && rm -rf var/cache/* var/lib/apt/lists usr/share/doc usr/share/man usr/share/locale \
        usr/share/fonts usr/share/info usr/sbin/policy-rc.d)
    tar -C "$root" --numeric-owner -c . | docker import "$@" \
        --change "ENV DISTJOB_VERSION=$version" \
        --message "Debian $suite, $kind $version" - "distjob-$kind:debian"
}

build_redis() {  # the data directory is the working directory, as in the official image
    install "$1" redis-server
    mkdir -p "$1/data"
    import redis "$1" "$(dpkg_version "$1" redis-server)" --change 'WORKDIR /data' \
        --change 'CMD ["redis-server", "--protected-mode", "no"]'
}

build_etcd() {
    install "$1" etcd-server etcd-client
    import etcd "$1" "$(dpkg_version "$1" etcd-server)" --change 'CMD ["etcd"]'
}

build_zookeeper() {  # the package zookeeper itself wants a JRE with a desktop, and adds but scripts
    install "$1" libzookeeper-java default-jre-headless
    cp "$here/debian/zkServer.sh" "$here/debian/zkCli.sh" "$1/usr/local/bin/"
    mkdir -p "$1/conf" "$1/data" "$1/datalog"
    import zookeeper "$1" "$(dpkg_version "$1" libzookeeper-java)" --change 'WORKDIR /data' \
        --change 'ENV ZOO_CONF_DIR=/conf ZOO_DATA_DIR=/data ZOO_DATA_LOG_DIR=/datalog' \
        --change 'CMD ["zkServer.sh", "start-foreground"]'
}

build_python() {
    install "$1" python3 python3-venv ca-certificates
    import python "$1" "$(dpkg_version "$1" python3)" --change 'CMD ["python3"]'
}

build_libvirt() {  # of its drivers the test driver is enough, which is a part of the library
    install "$1" libvirt-daemon python3-libvirt python3-venv ca-certificates
    import libvirt "$1" "$(dpkg_version "$1" libvirt-daemon)" --change 'CMD ["libvirtd", "--listen"]'
}

dpkg_version() { chroot "$1" dpkg-query -W -f '${Version}' "$2" | sed 's/^[0-9]*://; s/[-+~].*//'; }

debootstrap --variant=minbase "$suite" "$work/base" "$mirror" >&2
printf '#!/bin/sh\nexit 101\n' >"$work/base/usr/sbin/policy-rc.d"  # no daemon is started in there
chmod 755 "$work/base/usr/sbin/policy-rc.d"
printf 'path-exclude=/usr/share/%s/*\n' doc man locale maven-repo >"$work/base/etc/dpkg/dpkg.cfg.d/lean"

running=""
for kind in $missing; do
    (trap - EXIT; cp -a "$work/base" "$work/$kind"; "build_$kind" "$work/$kind") &
    running="$running $!"
done
failed=0
for one in $running; do
    wait "$one" || failed=1
done
exit $failed
