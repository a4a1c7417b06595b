"""Asks a router's management node with Proton's own request/response client.

Usage: proton_manage.py URL USER PASSWORD. Prints what was answered as JSON.
"""
import json
import sys

from proton import Message
from proton.utils import BlockingConnection, SyncRequestResponse

url, user, password = sys.argv[1:]
connection = BlockingConnection(url, user=user, password=password, sasl_enabled=True,
                                allowed_mechs="PLAIN", timeout=10)
node = SyncRequestResponse(connection, "$management")


def ask(body=None, **properties):
    reply = node.call(Message(properties=properties, body=body))
    return reply.properties["statusCode"], reply.body


types = ask(operation="GET-TYPES", type="org.amqp.management", name="self")
query = ask({"attributeNames": ["identity", "user", "sasl"]}, operation="QUERY",
            type="org.amqp.management", name="self", entityType="connection", offset=0, count=10)
me = [row[0] for row in query[1]["results"] if row[1] == user]
read = ask(operation="READ", type="connection", identity=me[0])
missing = ask(operation="DELETE", type="connection", identity=12345)
print(json.dumps({
    "types": [types[0], sorted(types[1])],
    "names": query[1]["attributeNames"], "results": len(query[1]["results"]),
    "read": [read[0], read[1]["user"], read[1]["sasl"]], "missing": missing[0],
}))
connection.close()
