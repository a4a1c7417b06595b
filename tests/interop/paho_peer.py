"""An MQTT 3.1.1 device on paho for Python, driven by JSON lines.

The first line of the input is the options, every further one a command; a line
is written for everything that happens. The package documentation in doc.go says
more; the command paho5 speaks the same for MQTT 5. The end of the input ends the
device without a DISCONNECT.
"""
import json
import os
import socket
import ssl
import struct
import sys
import threading

import paho.mqtt.client as mqtt

out = threading.Lock()


def say(event, **facts):
    facts["event"] = event
    with out:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


class Heard:
    """A socket that keeps what it receives, for the report of a failed handshake."""

    def __init__(self, under):
        self.under, self.text = under, b""

    def __getattr__(self, name):
        return getattr(self.under, name)

    def recv(self, n):
        got = self.under.recv(n)
        self.text += got
        return got


class WebSocket(mqtt.WebsocketWrapper):
    def _do_handshake(self, headers):
        plain, self._socket = self._socket, Heard(self._socket)
        try:
            super()._do_handshake(headers)
        except mqtt.WebsocketConnectionError as e:
            raise OSError("%s: answered %r" % (e, self._socket.text)) from e
        self._socket = plain


mqtt.WebsocketWrapper = WebSocket


class Device:
    def __init__(self, options):
        self.options = options
        self.ids, self.acknowledged = {}, set()   # packet id -> id of the message; those that were first to come
        self.lock = threading.Lock()
        self.flooding = set()
        c = self.client = mqtt.Client(client_id=options.get("clientId", ""), protocol=mqtt.MQTTv311,
                                      transport="websockets" if options.get("webSocket") else "tcp")
        c.ws_set_options(path=options.get("webSocket"))
        c.max_inflight_messages_set(options.get("inFlight", 20))
        c.reconnect_delay_set(1, 1)
        if options.get("user") is not None:
            c.username_pw_set(options["user"], options.get("password"))
        if options.get("ca"):
            context = ssl.create_default_context(cafile=options["ca"])
            if options.get("cert"):
                context.load_cert_chain(options["cert"], options["key"])
            c.tls_set_context(context)
        will = options.get("will")
        if will:
            c.will_set(will["topic"], will.get("payload"), will.get("qos", 0), will.get("retain", False))
        c.on_connect, c.on_disconnect = self.on_connect, self.on_disconnect
        c.on_publish, c.on_message = self.on_publish, self.on_message
        c.on_subscribe = lambda c, u, mid, granted: say("suback", codes=list(granted))
        c.on_unsubscribe = lambda c, u, mid: say("unsuback")
        c.on_log = self.on_log

    def run(self):
        host, port = self.options["addr"].rsplit(":", 1)
        self.client.connect(host, int(port), keepalive=self.options.get("keepAlive", 60))
        # In loop_forever paho would write what this thread sends while its own thread writes.
        self.client.loop_start()
        self.read_commands()

    def on_connect(self, client, userdata, flags, code):
        say("connack", code=code, sessionPresent=bool(flags.get("session present")))

    def on_disconnect(self, client, userdata, code):
        say("closed", code=code)
        if not self.options.get("reconnect"):
            os._exit(0)

    def on_message(self, client, userdata, m):
        say("message", topic=m.topic, payload=m.payload.decode(), qos=m.qos)

    def on_log(self, client, userdata, level, text):
        if text == "Received PINGRESP":
            say("pong")

    def on_publish(self, client, userdata, mid):
        with self.lock:
            if mid in self.ids:
                self.said(self.ids.pop(mid))
            else:
                self.acknowledged.add(mid)

    def said(self, number):
        say("puback", id=number)
        if number in self.flooding:
            self.flooding.remove(number)
            if not self.flooding:
                say("flooded")

    def publish(self, m, number, payload):
        info = self.client.publish(m["topic"], payload, m.get("qos", 0), m.get("retain", False))
        with self.lock:
            if info.mid in self.acknowledged:   # before it was known which one it was
                self.acknowledged.remove(info.mid)
                self.said(number)
            else:
                self.ids[info.mid] = number

    def read_commands(self):
        for line in sys.stdin:
            m = json.loads(line)
            what = m["cmd"]
            if what == "publish":
                self.publish(m, m.get("id", 0), m.get("payload", ""))
            elif what == "flood":
                numbers = range(m.get("id", 0), m.get("id", 0) + m["n"])
                with self.lock:
                    self.flooding.update(numbers)
                for number in numbers:
                    self.publish(m, number, "%s%d" % (m.get("payload", ""), number - m.get("id", 0)))
            elif what == "subscribe":
                self.client.subscribe([(f, m.get("qos", 0)) for f in m["filters"]])
            elif what == "unsubscribe":
                self.client.unsubscribe(m["filters"])
            elif what == "disconnect":
                self.client.disconnect()
            elif what == "drop":
                s = self.client.socket()
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os._exit(0)
        os._exit(0)


try:
    Device(json.loads(sys.stdin.readline())).run()
except OSError as e:
    say("closed", reason=str(e))
