#!/bin/sh
# The client that ships with ZooKeeper, from Debian's package: zkCli.sh -server HOST:PORT [COMMAND...]
set -eu
# shellcheck disable=SC2086  # flags are several words
exec "${JAVA_HOME:+$JAVA_HOME/bin/}java" ${CLIENT_JVMFLAGS:-} ${JVMFLAGS:-} \
    -cp "${ZOO_CLASSPATH:-/usr/share/java/zookeeper.jar}" org.apache.zookeeper.ZooKeeperMain "$@"
