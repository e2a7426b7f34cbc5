"""rpc.proto, the code made from it, and etcd's own messages agree; under any protobuf that we take.

The code is made by a protoc of the 4.25 series, whose code runs with protobuf 4 to 7, and does not
refuse those to come: newer ones' code runs with their own major and the next.

    pip install grpcio-tools==1.62.3
    cd backends && python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. distjob_etcd/rpc.proto
"""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from importlib.resources import files

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from distjob_etcd import rpc_pb2 as rpc

PROTO = files("distjob_etcd").joinpath("rpc.proto").read_text(encoding="utf-8")
TYPES = {
    "int64": FieldDescriptor.TYPE_INT64,
    "uint64": FieldDescriptor.TYPE_UINT64,
    "bool": FieldDescriptor.TYPE_BOOL,
    "bytes": FieldDescriptor.TYPE_BYTES,
    "string": FieldDescriptor.TYPE_STRING,
}

LATER = {
    "Member isLearner",
    "StatusResponse dbSizeInUse",
    "StatusResponse dbSizeQuota",
    "StatusResponse errors",
    "StatusResponse isLearner",
    "WatchCreateRequest fragment",
    "WatchCreateRequest watch_id",
    "WatchRequest progress_request",
    "WatchResponse fragment",
}
"""Fields that etcd got later than the fork has its messages from."""


def written() -> dict[str, dict[str, tuple[int, str, bool]]]:
    """The fields of each message in rpc.proto: number, type, whether repeated."""
    text = re.sub(r"//.*", "", PROTO).replace("{}", "{\n}")
    found = {}
    text = re.sub(r"(?ms)^  enum \w+ \{.*?\}", "", text)
    for name, body in re.findall(r"(?ms)^message (\w+) \{(.*?)^\}", text):
        found[name] = {
            field: (int(number), kind, bool(many))
            for many, kind, field, number in re.findall(
                r"(?m)^\s+(repeated )?(\w+) (\w+) = (\d+);", body
            )
        }
    return found


def made() -> dict[str, dict[str, tuple[int, str, bool]]]:
    """The same of the code."""
    return {name: fields(message) for name, message in rpc.DESCRIPTOR.message_types_by_name.items()}


def fields(message: Descriptor) -> dict[str, tuple[int, str, bool]]:
    names = {number: name for name, number in TYPES.items()}
    found = {}
    for field in message.fields:
        inner = field.message_type or field.enum_type
        kind = inner.name if inner is not None else names[field.type]
        found[field.name] = (field.number, kind, field.is_repeated)
    return found


def test_the_code_is_of_this_proto() -> None:
    assert made() == written()


def test_etcds_own_messages_have_the_same_fields() -> None:
    """As the fork of python-etcd3 has them, if it is here: in a process of its own, as in use."""
    script = (
        "from pyetcd.etcdrpc import rpc_pb2 as rpc, kv_pb2 as kv\n"
        "for file in (rpc, kv):\n"
        "    for name, message in file.DESCRIPTOR.message_types_by_name.items():\n"
        "        for field in message.fields:\n"
        "            print(name, field.name, field.number, field.type)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("there is no pyetcd (etcd-sdk-python)")
    theirs = {tuple(line.split()[:2]): tuple(line.split()[2:]) for line in done.stdout.split("\n")}
    ours = {
        (name, field.name): (str(field.number), str(field.type))
        for name, message in rpc.DESCRIPTOR.message_types_by_name.items()
        for field in message.fields
    }
    missing = {" ".join(key) for key in ours.keys() - theirs.keys()}
    assert missing <= LATER
    assert {key: number for key, number in ours.items() if theirs.get(key, number) != number} == {}


def test_importing_the_code_warns_of_nothing() -> None:
    script = "import distjob_etcd.rpc_pb2 as rpc; rpc.TxnRequest().SerializeToString()"
    command = [sys.executable, "-W", "error", "-c", script]
    subprocess.run(command, check=True, timeout=30)


def test_a_message_goes_there_and_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        put = rpc.PutRequest(key=b"k\0", value=b"\xff", ignore_lease=True)
        txn = rpc.TxnRequest(
            compare=[rpc.Compare(target=rpc.Compare.CREATE, key=b"k", create_revision=0)],
            success=[rpc.RequestOp(request_put=put)],
        )
        assert rpc.TxnRequest.FromString(txn.SerializeToString()) == txn
        assert rpc.KeyValue(mod_revision=1 << 62).mod_revision == 1 << 62
