// An AMQP 1.0 sender or receiver on rhea, driven by JSON lines.
//
// Usage: rhea_peer.js send|recv, with NODE_PATH naming the folder that holds
// rhea. The package documentation in doc.go has the protocol; proton_peer.py
// speaks the same.
'use strict';

const crypto = require('crypto');
const fs = require('fs');
const readline = require('readline');
const rhea = require('rhea');

const role = process.argv[2];
const SND = {unsettled: 0, settled: 1, mixed: 2};
const RCV = {first: 0, second: 1};
const FLOOD = rhea.message.data_section(Buffer.alloc(256, 'x'));

function say(event, facts) {
  fs.writeSync(1, JSON.stringify(Object.assign({event}, facts)) + '\n');
}

// plain makes a map of AMQP values what JSON can hold.
function plain(values) {
  const out = {};
  for (const [k, v] of Object.entries(values || {})) {
    out[k] = ['boolean', 'number', 'string'].includes(typeof v) ? v : String(v);
  }
  return out;
}

function bytes(body) {
  if (body === undefined || body === null) return Buffer.alloc(0);
  if (body.typecode === 0x75) body = body.content;
  if (Array.isArray(body)) body = Buffer.concat(body);
  return Buffer.isBuffer(body) ? body : Buffer.from(String(body));
}

// pattern is the body that Go's pattern and proton_peer.py make of the same figures.
function pattern(size, seed) {
  const block = Buffer.alloc(65537);
  for (let i = 0; i < block.length; i++) block[i] = (i * i * 31 + seed * 7 + (i >> 8)) % 256;
  return Buffer.alloc(size, block);
}

function run(options, lines) {
  let closing = false;
  const connect = {
    host: options.host, port: options.port, username: options.user, password: options.password,
    reconnect: false, container_id: 'rhea-peer-' + process.pid,
  };
  if (options.buffer) connect.session_buffer_size = options.buffer;
  if (options.maxFrame) connect.max_frame_size = options.maxFrame;
  if (options.ca) {
    Object.assign(connect, {transport: 'tls', ca: [fs.readFileSync(options.ca)], servername: options.host === '127.0.0.1' ? '' : options.host});
  }
  const connection = rhea.create_container().connect(connect);
  const modes = {
    snd_settle_mode: SND[options.sndSettleMode || 'mixed'],
    rcv_settle_mode: RCV[options.rcvSettleMode || 'first'],
  };

  const closed = (error) => {
    say('closed', {condition: (error && error.condition) || '', description: (error && (error.description || error.message)) || ''});
    process.exit(closing ? 0 : 3);
  };
  connection.on('connection_error', (c) => closed(c.error || c.connection.error));
  connection.on('connection_close', () => closed());
  connection.on('disconnected', (c) => closed(c.error));
  for (const kind of ['sender', 'receiver', 'session']) {
    connection.on(kind + '_error', (c) => closed(c[kind].error));
  }

  const onLine = role === 'send' ? sender(connection, options, modes) : receiver(connection, options, modes);
  lines.on('line', (line) => onLine(JSON.parse(line)));
  lines.on('close', () => {
    closing = true;
    connection.close();
  });
}

function ready(link) {
  const r = link.remote.attach;
  say('ready', {
    address: (role === 'send' ? r.target : r.source).address,
    sndSettleMode: Object.keys(SND)[r.snd_settle_mode], rcvSettleMode: Object.keys(RCV)[r.rcv_settle_mode],
  });
}

function sender(connection, options, modes) {
  const waiting = [];
  const sent = new Map();
  const flood = {until: 0, open: 0, accepted: 0, id: 1 << 30, running: false};
  let unopened = 1 + (options.links || 0);
  const link = connection.open_sender(Object.assign({target: {address: options.address || undefined}, autosettle: true, treat_modified_as_released: false}, modes));

  const flush = () => {
    while (waiting.length > 0 && link.sendable()) sendOne(waiting.shift());
  };
  const flooding = () => {
    if (!flood.running) return;
    while (Date.now() < flood.until && link.sendable()) {
      sent.set(link.send({body: FLOOD}, String(++flood.id)).id, flood.id);
      flood.open++;
    }
    if (Date.now() >= flood.until && flood.open === 0) {
      say('flooded', {n: flood.accepted});
      flood.accepted = 0;
      flood.running = false;
    }
  };
  const sendOne = (m) => {
    const body = m.size ? pattern(m.size, m.id) : Buffer.from(m.body || '', 'base64');
    const message = {
      body: rhea.message.data_section(body), subject: m.subject || undefined,
      application_properties: {number: rhea.types.wrap_int(m.id)},
      message_annotations: {'x-opt-note': 'kept'},
      delivery_annotations: {'x-opt-hop': 'of this hop'},
    };
    if (m.contentType) message.content_type = m.contentType;
    if (m.to) message.to = m.to;
    if (m.replyTo) message.reply_to = m.replyTo;
    if (m.correlationId) message.correlation_id = m.correlationId;
    if (m.messageId) message.message_id = m.messageId;
    if (m.form === 'text') message.body = body.toString();
    const delivery = link.send(message, String(m.id));
    if (m.settled) delivery.settled = true;
    if (delivery.settled) say('sent', {id: m.id});
    else sent.set(delivery.id, m.id);
  };
  const outcome = (state, facts) => (context) => {
    const id = sent.get(context.delivery.id);
    if (id === undefined) return;
    sent.delete(context.delivery.id);
    if (id > 1 << 30) {
      flood.open--;
      if (state === 'accepted') flood.accepted++;
      if (!context.delivery.remote_settled) context.delivery.update(true);
      flooding();
      return;
    }
    say('outcome', Object.assign({id, state, settledByPeer: !!context.delivery.remote_settled}, facts(context.delivery.remote_state)));
    if (!context.delivery.remote_settled) context.delivery.update(true);
  };
  const opened = () => {
    if (--unopened === 0) ready(link);
  };
  link.on('sender_open', opened);
  link.on('sendable', () => {
    flush();
    flooding();
  });
  for (let i = 0; i < (options.links || 0); i++) {
    connection.open_sender({name: 'idle-' + i, target: {address: options.address}}).on('sender_open', opened);
  }
  link.on('accepted', outcome('accepted', () => ({})));
  link.on('rejected', outcome('rejected', (s) => ({
    condition: String((s.error && s.error.condition) || ''), description: String((s.error && s.error.description) || ''),
    info: plain(s.error && s.error.info),
  })));
  link.on('released', outcome('released', () => ({})));
  link.on('modified', outcome('modified', (s) => ({deliveryFailed: !!s.delivery_failed, undeliverableHere: !!s.undeliverable_here, info: plain(s.message_annotations)})));
  return (m) => {
    if (m.cmd === 'flood') {
      flood.until = Date.now() + m.n;
      flood.running = true;
      flooding();
      return;
    }
    waiting.push(m);
    flush();
  };
}

function receiver(connection, options, modes) {
  const link = connection.open_receiver(Object.assign(
    {source: {address: options.address || undefined, dynamic: !!options.dynamic}, credit_window: options.manual ? 0 : options.credit || 10, autoaccept: false, autosettle: false}, modes));
  link.on('receiver_open', () => ready(link));
  link.on('message', (context) => {
    const m = context.message;
    const d = context.delivery;
    const body = bytes(m.body);
    const facts = options.digest ? {sha256: crypto.createHash('sha256').update(body).digest('hex')} : {body: body.toString('base64')};
    say('message', Object.assign(facts, {
      size: body.length, replyTo: m.reply_to || '', correlationId: String(m.correlation_id || ''), subject: m.subject || '', to: m.to || '', contentType: m.content_type || '',
      messageId: String(m.message_id || ''), annotations: plain(m.message_annotations),
      deliveryAnnotations: plain(m.delivery_annotations), properties: plain(m.application_properties),
      settled: !!d.remote_settled,
      durable: !!m.durable, deliveryCount: m.delivery_count || 0, firstAcquirer: !!m.first_acquirer, ttl: m.ttl || 0,
    }));
    if (d.remote_settled) {
      d.update(true);
      return;
    }
    answer(d, options.answer || m.subject);
  });
  link.on('settled', (context) => {
    if (!context.delivery.settled) context.delivery.update(true);
    say('settled');
  });
  link.on('receiver_drained', () => {
    link.drain = false;
    say('drained', {n: 0});
  });
  return (m) => {
    if (m.cmd === 'credit') link.add_credit(m.n);
    if (m.cmd === 'drain') link.drain_credit();
  };
}

function answer(delivery, subject) {
  const flags = subject === 'modified' ? ['modified', 'failed', 'undeliverable'] : String(subject).split(':');
  switch (flags[0]) {
    case 'hold': return;
    case 'rejected': return delivery.reject({condition: 'test:refused', description: 'as the subject asked', info: {'x-opt-why': 'told'}});
    case 'released': return delivery.release();
    case 'modified': return delivery.modified({
      delivery_failed: flags.includes('failed'), undeliverable_here: flags.includes('undeliverable'),
      message_annotations: flags.includes('annotated') ? {'x-opt-why': 'told'} : undefined,
    });
    default: return delivery.accept();
  }
}

const lines = readline.createInterface({input: process.stdin});
lines.once('line', (line) => run(JSON.parse(line), lines));
