// Asks a router's service addresses, or fetches a token, with rhea. Input and
// output are those of proton_service.py, with host and port in place of the url.
'use strict';

const fs = require('fs');
const rhea = require('rhea');

const options = JSON.parse(fs.readFileSync(0, 'utf8'));
const connection = rhea.create_container().connect({
  host: options.host, port: options.port, username: options.user, password: options.password, reconnect: false,
});

function fail(what, e) {
  console.error(what, e && (e.condition || e.message), e && e.description);
  process.exit(1);
}
connection.on('disconnected', (c) => fail('disconnected', c.error));
connection.on('connection_error', (c) => fail('connection', c.connection.error));
connection.on('receiver_error', (c) => fail('receiver', c.receiver.error));
connection.on('sender_error', (c) => fail('sender', c.sender.error));
connection.on('rejected', (c) => fail('rejected', c.delivery.remote_state.error));
connection.on('released', () => fail('released'));

function done(result) {
  fs.writeSync(1, JSON.stringify(result) + '\n');
  process.exit(0);
}

function body(q) {
  if (q.body === undefined) return undefined;
  if (q.form === 'text') return q.body;
  if (q.form === 'binary') return Buffer.from(q.body);
  return rhea.message.data_section(Buffer.from(q.body));
}

function fetchToken() {
  const receiver = connection.open_receiver({source: 'cbs', credit_window: 0, autoaccept: false});
  receiver.add_credit(1);
  let got;
  receiver.on('message', (c) => {
    got = {type: c.message.application_properties.type, text: typeof c.message.body === 'string', token: c.message.body};
    c.delivery.accept();
  });
  receiver.on('receiver_close', (c) => done(Object.assign(got, {closed: (c.receiver.error && c.receiver.error.condition) || 'without an error'})));
}

const links = {};
const results = [];

function next() {
  const n = results.length;
  if (n === options.requests.length) return done(results);
  const q = options.requests[n];
  if (!links[q.target]) {
    const receiver = connection.open_receiver({source: q.replyTo, snd_settle_mode: 0});
    const sender = connection.open_sender({target: q.target, snd_settle_mode: 0});
    links[q.target] = sender;
    receiver.on('message', (c) => {
      const m = c.message;
      const p = m.application_properties;
      const content = m.body && m.body.typecode === 0x75 ? m.body.content : undefined;
      results.push({
        status: p.status, cacheControl: p.cache_control || '', tenant: p.tenant_id || '', device: p.device_id || '',
        correlated: m.correlation_id === 'rhea-' + (results.length), to: m.to || '', contentType: String(m.content_type || ''),
        body: content ? content.toString() : '', dataSection: content !== undefined, settled: !!c.delivery.remote_settled,
      });
      next();
    });
    sender.once('sendable', () => send(sender, n, q));
    return;
  }
  send(links[q.target], n, q);
}

function send(sender, n, q) {
  const m = {subject: q.subject, reply_to: q.replyTo, message_id: 'rhea-' + n, application_properties: q.properties, body: body(q)};
  sender.send(m);
}

connection.once('connection_open', () => (options.token ? fetchToken() : next()));
