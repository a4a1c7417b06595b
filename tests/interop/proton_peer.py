"""An AMQP 1.0 sender or receiver on Proton, driven by JSON lines.

Usage: proton_peer.py send|recv. The package documentation in doc.go has the
protocol; rhea_peer.js speaks the same.
"""
import base64
import hashlib
import json
import os
import sys
import threading
import time

from proton import (Condition, Delivery, Handler, Link,
                    Message, SSLDomain, symbol)
from proton.handlers import MessagingHandler
from proton.reactor import (ApplicationEvent, Container, EventInjector,
                            LinkOption)

STATES = {Delivery.ACCEPTED: "accepted", Delivery.REJECTED: "rejected",
          Delivery.RELEASED: "released", Delivery.MODIFIED: "modified"}


def say(event, **facts):
    facts["event"] = event
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def plain(values):
    """A map of AMQP values as JSON can hold it."""
    return {str(k): v if isinstance(v, (bool, int, float, str)) else str(v)
            for k, v in (values or {}).items()}


def pattern(size, seed):
    """The body that Go's pattern and rhea_peer.js make of the same figures."""
    block = bytes((i * i * 31 + seed * 7 + (i >> 8)) & 255 for i in range(65537))
    return (block * (size // len(block) + 1))[:size]


class Modes(LinkOption):
    def __init__(self, options):
        self.options = options

    def apply(self, link):
        link.snd_settle_mode = {"unsettled": Link.SND_UNSETTLED, "settled": Link.SND_SETTLED,
                                "mixed": Link.SND_MIXED}[self.options.get("sndSettleMode") or "mixed"]
        link.rcv_settle_mode = {"first": Link.RCV_FIRST, "second": Link.RCV_SECOND}[
            self.options.get("rcvSettleMode") or "first"]


class Later(Handler):
    """Does something once the reactor comes to it."""

    def __init__(self, task):
        self.task = task

    def on_timer_task(self, event):
        self.task()


PIECE = 1 << 18
FLOOD = Message(body=b"x" * 256, inferred=True).encode()


class Peer(MessagingHandler):
    def __init__(self, role, options):
        super().__init__(prefetch=0, auto_accept=False, auto_settle=False)
        self.role, self.options = role, options
        self.link = None
        self.waiting = []       # messages read and not yet sent
        self.sent = {}          # delivery tag -> id of the message
        self.answered = set()   # tags whose outcome was reported
        self.closing, self.streaming = False, False
        self.unopened = 1 + (options.get("links") or 0)
        self.flood_until, self.flooded, self.flood_id = 0, 0, 1 << 30
        self.injector = EventInjector()

    def on_start(self, event):
        o = self.options
        self.container = event.container
        event.container.selectable(self.injector)
        extra = {}
        scheme = "amqp"
        if o.get("ca"):
            scheme = "amqps"
            domain = SSLDomain(SSLDomain.MODE_CLIENT)
            domain.set_trusted_ca_db(o["ca"])
            domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
            extra["ssl_domain"] = domain
        if o.get("maxFrame"):
            extra["max_frame_size"] = o["maxFrame"]
        self.connection = event.container.connect(
            url="%s://%s:%d" % (scheme, o["host"], o["port"]), user=o["user"], password=o["password"],
            allowed_mechs="PLAIN", allow_insecure_mechs=True, reconnect=False, **extra)
        if self.role == "send":
            self.link = event.container.create_sender(self.connection, o["address"] or None, options=Modes(o))
            for i in range(o.get("links") or 0):
                event.container.create_sender(self.connection, o["address"], name="idle-%d" % i)
        else:
            self.link = event.container.create_receiver(
                self.connection, o["address"] or None, dynamic=bool(o.get("dynamic")), options=Modes(o))
            if not o.get("manual"):
                self.link.flow(o.get("credit") or 10)
        threading.Thread(target=self.read_input, daemon=True).start()

    def read_input(self):
        for line in sys.stdin:
            self.injector.trigger(ApplicationEvent("command", subject=json.loads(line)))
        self.injector.trigger(ApplicationEvent("end_of_input"))

    def on_command(self, event):
        m = event.subject
        if m.get("cmd") == "credit":
            self.link.flow(m["n"])
        elif m.get("cmd") == "drain":
            self.link.drain(0)
        elif m.get("cmd") == "flood":
            self.flood_until = time.monotonic() + m["n"] / 1000
            self.flood()
        else:
            self.waiting.append(m)
            self.send_waiting()

    def flood(self):
        """Sends as credit comes, until its time is over and everything is settled."""
        while self.link.credit > 0 and time.monotonic() < self.flood_until:
            self.flood_id += 1
            delivery = self.link.delivery(str(self.flood_id))
            self.link.stream(FLOOD)
            self.link.advance()
            self.sent[delivery.tag] = self.flood_id

    def on_end_of_input(self, event):
        self.closing = True
        self.connection.close()
        self.injector.close()

    def on_link_opened(self, event):
        self.unopened -= 1
        if self.unopened:
            return
        event = self
        say("ready", address=(event.link.remote_target if self.role == "send" else event.link.remote_source).address,
            sndSettleMode=["unsettled", "settled", "mixed"][event.link.remote_snd_settle_mode],
            rcvSettleMode=["first", "second"][event.link.remote_rcv_settle_mode])

    def on_sendable(self, event):
        self.send_waiting()
        self.flood()

    def on_link_flow(self, event):
        if self.role == "recv" and event.link.drain_mode and not event.link.draining():
            say("drained", n=event.link.drained())
            event.link.drain_mode = False

    def send_waiting(self):
        while self.waiting and self.link.credit > 0 and not self.streaming:
            self.send_one(self.waiting.pop(0))

    def send_one(self, m):
        body = pattern(m["size"], m["id"]) if m.get("size") else base64.b64decode(m["body"] or "")
        message = Message(body=body, subject=m.get("subject"), inferred=True)
        if m.get("contentType"):
            message.content_type = symbol(m["contentType"])
        if m.get("to"):
            message.address = m["to"]
        if m.get("replyTo"):
            message.reply_to = m["replyTo"]
        if m.get("correlationId"):
            message.correlation_id = m["correlationId"]
        if m.get("messageId"):
            message.id = m["messageId"]
        if m.get("form") == "text":
            message.body, message.inferred = body.decode(), False
        message.properties = {"number": m["id"]}
        message.annotations = {symbol("x-opt-note"): "kept"}
        message.instructions = {symbol("x-opt-hop"): "of this hop"}
        delivery = self.link.delivery(str(m["id"]))
        settled = self.link.snd_settle_mode == Link.SND_SETTLED or m.get("settled")
        if not settled:
            self.sent[delivery.tag] = m["id"]
        self.stream(delivery, memoryview(message.encode()), m["id"] if settled else None)

    def stream(self, delivery, rest, settled_id):
        """Sends a message, a large one in pieces: Proton moves all that is pending for each frame."""
        if delivery.pending < PIECE:
            self.link.stream(bytes(rest[:PIECE]))
            rest = rest[PIECE:]
        if rest:
            self.streaming = True
            self.container.schedule(0, Later(lambda: self.stream(delivery, rest, settled_id)))
            return
        if settled_id is not None:
            delivery.settle()
        self.link.advance()
        if settled_id is not None:
            say("sent", id=settled_id)
        self.streaming = False
        self.send_waiting()

    def on_delivery(self, event):
        if self.role == "send":
            self.on_outcome(event.delivery)
        elif event.delivery.aborted:
            self.on_delivery_aborted(event.delivery)
        elif event.delivery.partial and self.options.get("parts"):
            self.options["parts"] = False
            say("part")

    def on_outcome(self, delivery):
        """Reports a terminal outcome once, and settles what the receiver left to us."""
        if not delivery.updated or delivery.tag in self.answered:
            return
        state = delivery.remote_state
        if self.sent.get(delivery.tag, 0) > 1 << 30:
            self.flooded_one(delivery)
            return
        if state not in STATES:
            if not delivery.settled:
                return
            say("outcome", id=self.sent[delivery.tag], state="none")
        else:
            remote = delivery.remote
            facts = {"state": STATES[state], "settledByPeer": delivery.settled}
            if state == Delivery.REJECTED and remote.condition is not None:
                facts["condition"] = str(remote.condition.name)
                facts["description"] = remote.condition.description
                facts["info"] = plain(remote.condition.info)
            if state == Delivery.MODIFIED:
                facts["deliveryFailed"] = remote.failed
                facts["undeliverableHere"] = remote.undeliverable
                facts["info"] = plain(remote.annotations)
            say("outcome", id=self.sent[delivery.tag], **facts)
        self.answered.add(delivery.tag)
        delivery.settle()

    def flooded_one(self, delivery):
        if delivery.remote_state == Delivery.ACCEPTED:
            self.flooded += 1
        del self.sent[delivery.tag]
        delivery.settle()
        self.flood()
        if time.monotonic() >= self.flood_until and not any(i > 1 << 30 for i in self.sent.values()):
            say("flooded", n=self.flooded)
            self.flooded = 0

    def on_message(self, event):
        m, delivery = event.message, event.delivery
        body = m.body if isinstance(m.body, (bytes, memoryview)) else b"" if m.body is None else str(m.body).encode()
        facts = {"size": len(body)}
        if self.options.get("digest"):
            facts["sha256"] = hashlib.sha256(body).hexdigest()
        else:
            facts["body"] = base64.b64encode(bytes(body)).decode()
        say("message", **facts, replyTo=m.reply_to or "", correlationId=str(m.correlation_id or ""), subject=m.subject or "", to=m.address or "",
            contentType=str(m.content_type or ""), messageId=str(m.id or ""), annotations=plain(m.annotations),
            deliveryAnnotations=plain(m.instructions), properties=plain(m.properties), settled=delivery.settled,
            durable=m.durable, deliveryCount=m.delivery_count, firstAcquirer=m.first_acquirer, ttl=int(m.ttl * 1000))
        if not self.options.get("manual"):
            event.receiver.flow(1)
        if delivery.settled:
            delivery.settle()
            return
        self.answer(delivery, m.subject)

    def answer(self, delivery, subject):
        subject = self.options.get("answer") or subject
        if subject == "hold":
            return
        if subject == "rejected":
            delivery.local.condition = Condition("test:refused", "as the subject asked", {symbol("x-opt-why"): "told"})
            delivery.update(Delivery.REJECTED)
        elif subject == "released":
            delivery.update(Delivery.RELEASED)
        elif (subject or "").startswith("modified"):
            flags = (subject + ":failed:undeliverable" if subject == "modified" else subject).split(":")
            delivery.local.failed = "failed" in flags
            delivery.local.undeliverable = "undeliverable" in flags
            if "annotated" in flags:
                delivery.local.annotations = {symbol("x-opt-why"): "told"}
            delivery.update(Delivery.MODIFIED)
        else:
            delivery.update(Delivery.ACCEPTED)
        if self.link.rcv_settle_mode != Link.RCV_SECOND:
            delivery.settle()

    def on_delivery_aborted(self, delivery):
        say("aborted")
        delivery.settle()
        self.link.flow(1)

    def on_settled(self, event):
        # Proton also calls this for a pre-settled delivery of which more is to come.
        if self.role == "recv" and event.delivery.local_state in STATES:
            say("settled")
            event.delivery.settle()

    def on_connection_closed(self, event):
        self.gone(event.connection)

    def on_connection_error(self, event):
        self.gone(event.connection)

    def on_link_error(self, event):
        self.gone(event.link)

    def on_transport_error(self, event):
        self.closed(event.transport.condition)

    def on_disconnected(self, event):
        self.closed(event.transport.condition if event.transport else None)

    def gone(self, endpoint):
        self.closed(endpoint.remote_condition)

    def closed(self, condition):
        say("closed", condition=str(condition.name) if condition else "",
            description=(condition.description or "") if condition else "")
        sys.stdout.flush()
        os._exit(0 if self.closing else 3)


def main():
    role = sys.argv[1]
    options = json.loads(sys.stdin.readline())
    Container(Peer(role, options)).run()


main()
