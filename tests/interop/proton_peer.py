"""An AMQP 1.0 sender or receiver on Proton, driven by JSON lines.

Usage: proton_peer.py send|recv. The package documentation in doc.go has the
protocol; rhea_peer.js speaks the same.
"""
import base64
import json
import os
import sys
import threading

from proton import (Condition, Delivery, Link,
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


class Modes(LinkOption):
    def __init__(self, options):
        self.options = options

    def apply(self, link):
        link.snd_settle_mode = {"unsettled": Link.SND_UNSETTLED, "settled": Link.SND_SETTLED,
                                "mixed": Link.SND_MIXED}[self.options.get("sndSettleMode") or "mixed"]
        link.rcv_settle_mode = {"first": Link.RCV_FIRST, "second": Link.RCV_SECOND}[
            self.options.get("rcvSettleMode") or "first"]


class Peer(MessagingHandler):
    def __init__(self, role, options):
        super().__init__(prefetch=0, auto_accept=False, auto_settle=False)
        self.role, self.options = role, options
        self.link = None
        self.waiting = []       # messages read and not yet sent
        self.sent = {}          # delivery tag -> id of the message
        self.answered = set()   # tags whose outcome was reported
        self.closing = False
        self.injector = EventInjector()

    def on_start(self, event):
        o = self.options
        event.container.selectable(self.injector)
        extra = {}
        scheme = "amqp"
        if o.get("ca"):
            scheme = "amqps"
            domain = SSLDomain(SSLDomain.MODE_CLIENT)
            domain.set_trusted_ca_db(o["ca"])
            domain.set_peer_authentication(SSLDomain.VERIFY_PEER_NAME)
            extra["ssl_domain"] = domain
        self.connection = event.container.connect(
            url="%s://%s:%d" % (scheme, o["host"], o["port"]), user=o["user"], password=o["password"],
            allowed_mechs="PLAIN", allow_insecure_mechs=True, reconnect=False, **extra)
        if self.role == "send":
            self.link = event.container.create_sender(self.connection, o["address"], options=Modes(o))
        else:
            self.link = event.container.create_receiver(self.connection, o["address"], options=Modes(o))
            self.link.flow(o.get("credit") or 10)
        threading.Thread(target=self.read_input, daemon=True).start()

    def read_input(self):
        for line in sys.stdin:
            self.injector.trigger(ApplicationEvent("command", subject=json.loads(line)))
        self.injector.trigger(ApplicationEvent("end_of_input"))

    def on_command(self, event):
        self.waiting.append(event.subject)
        self.send_waiting()

    def on_end_of_input(self, event):
        self.closing = True
        self.connection.close()
        self.injector.close()

    def on_link_opened(self, event):
        say("ready", address=(event.link.remote_target if self.role == "send" else event.link.remote_source).address,
            sndSettleMode=["unsettled", "settled", "mixed"][event.link.remote_snd_settle_mode],
            rcvSettleMode=["first", "second"][event.link.remote_rcv_settle_mode])

    def on_sendable(self, event):
        self.send_waiting()

    def send_waiting(self):
        while self.waiting and self.link.credit > 0:
            self.send_one(self.waiting.pop(0))

    def send_one(self, m):
        message = Message(body=base64.b64decode(m["body"]), subject=m.get("subject"), inferred=True)
        if m.get("contentType"):
            message.content_type = symbol(m["contentType"])
        if m.get("to"):
            message.address = m["to"]
        message.properties = {"number": m["id"]}
        message.annotations = {symbol("x-opt-note"): "kept"}
        message.instructions = {symbol("x-opt-hop"): "of this hop"}
        delivery = self.link.delivery(str(m["id"]))
        settled = self.link.snd_settle_mode == Link.SND_SETTLED or m.get("settled")
        self.link.stream(message.encode())
        if settled:
            delivery.settle()
        self.link.advance()
        if settled:
            say("sent", id=m["id"])
        else:
            self.sent[delivery.tag] = m["id"]

    def on_delivery(self, event):
        if self.role == "send":
            self.on_outcome(event.delivery)

    def on_outcome(self, delivery):
        """Reports a terminal outcome once, and settles what the receiver left to us."""
        if not delivery.updated or delivery.tag in self.answered:
            return
        state = delivery.remote_state
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
            if state == Delivery.MODIFIED:
                facts["deliveryFailed"] = remote.failed
                facts["undeliverableHere"] = remote.undeliverable
            say("outcome", id=self.sent[delivery.tag], **facts)
        self.answered.add(delivery.tag)
        delivery.settle()

    def on_message(self, event):
        m, delivery = event.message, event.delivery
        body = m.body if isinstance(m.body, (bytes, memoryview)) else b"" if m.body is None else str(m.body).encode()
        say("message", body=base64.b64encode(bytes(body)).decode(), subject=m.subject or "", to=m.address or "",
            contentType=str(m.content_type or ""), messageId=str(m.id or ""), annotations=plain(m.annotations),
            deliveryAnnotations=plain(m.instructions), properties=plain(m.properties), settled=delivery.settled)
        event.receiver.flow(1)
        if delivery.settled:
            delivery.settle()
            return
        self.answer(delivery, m.subject)

    def answer(self, delivery, subject):
        if subject == "hold":
            return
        if subject == "rejected":
            delivery.local.condition = Condition("test:refused", "as the subject asked")
            delivery.update(Delivery.REJECTED)
        elif subject == "released":
            delivery.update(Delivery.RELEASED)
        elif subject == "modified":
            delivery.local.failed = True
            delivery.local.undeliverable = True
            delivery.update(Delivery.MODIFIED)
        else:
            delivery.update(Delivery.ACCEPTED)
        if self.link.rcv_settle_mode != Link.RCV_SECOND:
            delivery.settle()

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
