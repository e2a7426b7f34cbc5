#!/bin/sh
# Debian's ZooKeeper, started as the official image starts its own: from ZOO_* variables, or from a
# zoo.cfg of yours.
#
#   zkServer.sh start-foreground [ZOO.CFG]       default: $ZOO_CONF_DIR/zoo.cfg, made if it is missing
#   zkServer.sh version
#
# JVMFLAGS and SERVER_JVMFLAGS go to the JVM, as there.
set -euf  # f: the * of a setting is no file name

# Debian's jar does not name all that it needs: these two are for TLS and for the log.
jars=/usr/share/java
classes=${ZOO_CLASSPATH:-$jars/zookeeper.jar:$jars/netty-codec.jar:$jars/slf4j-simple.jar}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

case ${1:-} in
version)
    exec "$java" -cp "$classes" org.apache.zookeeper.version.VersionInfoMain
    ;;
start-foreground) ;;
*)
    echo "usage: zkServer.sh start-foreground [ZOO.CFG] | version" >&2
    exit 2
    ;;
esac

config=${2:-${ZOO_CONF_DIR:=/conf}/zoo.cfg}
if [ ! -e "$config" ]; then
    data=${ZOO_DATA_DIR:-/data}
    {
        echo "dataDir=$data"
        echo "dataLogDir=${ZOO_DATA_LOG_DIR:-/datalog}"
        echo "tickTime=${ZOO_TICK_TIME:-2000}"
        echo "initLimit=${ZOO_INIT_LIMIT:-5}"
        echo "syncLimit=${ZOO_SYNC_LIMIT:-2}"
        echo "maxClientCnxns=${ZOO_MAX_CLIENT_CNXNS:-60}"
        echo "standaloneEnabled=${ZOO_STANDALONE_ENABLED:-true}"
        echo "admin.enableServer=${ZOO_ADMINSERVER_ENABLED:-true}"
        printf '%s\n' ${ZOO_SERVERS:-"server.1=localhost:2888:3888;2181"}
        echo "4lw.commands.whitelist=${ZOO_4LW_COMMANDS_WHITELIST:-srvr}"
        printf '%s\n' ${ZOO_CFG_EXTRA:-}
    } >"$config"
    [ -e "$data/myid" ] || echo "${ZOO_MY_ID:-1}" >"$data/myid"
fi

# shellcheck disable=SC2086  # flags are several words
exec "$java" ${SERVER_JVMFLAGS:-} ${JVMFLAGS:-} -cp "$(dirname "$config"):$classes" \
    org.apache.zookeeper.server.quorum.QuorumPeerMain "$config"
