"""Publishes an event over gRPC without any file of Fanfare's: the server describes itself.

pip install grpcio grpcio-reflection
python publish.py ADDRESS TYPE JSON [ID]
"""
import sys
import uuid

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

address, event_type, data = sys.argv[1:4]
event_id = sys.argv[4] if len(sys.argv) > 4 else str(uuid.uuid4())

with grpc.insecure_channel(address) as channel:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    publish = pool.FindServiceByName("fanfare.v1.EventService").FindMethodByName("Publish")
    request = GetMessageClass(publish.input_type)()
    request.event.id = event_id  # made here, so that the call can be repeated
    request.event.type = event_type
    request.event.source = "/examples/python"
    request.event.data = data.encode()
    call = channel.unary_unary(
        "/fanfare.v1.EventService/Publish",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(publish.output_type).FromString,
    )
    print("published", call(request, timeout=10).id)
