"""Asks a router's service addresses, or fetches a token, with Proton.

Usage: proton_service.py, with a JSON object on standard input that has url,
user, password and either requests or token set. A request has target, replyTo,
subject, properties, body and form (data, text or binary: how the body is sent).
Prints a list of what was answered, in order, or the message with the token.
"""
import json
import sys

from proton import Endpoint, Message, int32
from proton.utils import BlockingConnection

options = json.load(sys.stdin)
connection = BlockingConnection(options["url"], user=options["user"], password=options["password"],
                                sasl_enabled=True, allowed_mechs="PLAIN", timeout=20)
links = {}


def message(n, q):
    body = q.get("body")
    m = Message(subject=q["subject"], reply_to=q["replyTo"], id="proton-%d" % n, properties=q.get("properties"))
    if body is not None:
        text = q.get("form") == "text"
        m.body = body if text else body.encode()
        m.inferred = q.get("form", "data") == "data"
    return m


def ask(n, q):
    if q["target"] not in links:
        receiver = connection.create_receiver(q["replyTo"], credit=10)
        links[q["target"]] = (receiver, connection.create_sender(q["target"]))
    receiver, sender = links[q["target"]]
    sender.send(message(n, q))
    reply = receiver.receive(timeout=20)
    settled = receiver.fetcher.unsettled[-1].settled if receiver.fetcher.unsettled else True
    receiver.accept()
    p = reply.properties
    return {
        "status": p["status"] if type(p["status"]) is int32 else "of type " + type(p["status"]).__name__,
        "cacheControl": p.get("cache_control", ""), "tenant": p.get("tenant_id", ""), "device": p.get("device_id", ""),
        "correlated": reply.correlation_id == "proton-%d" % n, "to": reply.address or "",
        "contentType": str(reply.content_type or ""), "body": bytes(reply.body or b"").decode(),
        "dataSection": bool(reply.inferred), "settled": settled,
    }


if options.get("token"):
    fetcher = connection.create_receiver("cbs", credit=1)
    token = fetcher.receive(timeout=20)
    fetcher.accept()
    connection.wait(lambda: fetcher.link.state & Endpoint.REMOTE_CLOSED)
    end = fetcher.link.remote_condition
    closed = end.name if end else "without an error"
    print(json.dumps({"type": token.properties.get("type"), "text": type(token.body) is str, "token": token.body, "closed": closed}))
else:
    print(json.dumps([ask(n, q) for n, q in enumerate(options["requests"])]))
connection.close()
