'use strict';
// Tell agentd about your tasks: they finish or go on elsewhere when it replaces your worker, and effects happen once.
//
// Requests of one turn of the event loop leave with one write. What is not answered is kept, in order, and sent again
// with the same number when agentd was replaced; every request counts once however often it is said. Without agentd
// everything gives the same results, and nothing is kept.

const net = require('node:net');
const { randomBytes } = require('node:crypto');
const { AsyncLocalStorage } = require('node:async_hooks');

const EXIT_FENCED = 75;
const SDK = 'node/0.1.0';
const scope = new AsyncLocalStorage();

/** agentd refused a request; nothing of it counts. */
class Refused extends Error {
  constructor(code, message) { super(`${code}: ${message}`); this.name = 'Refused'; this.code = code; }
}
/** The task was handed over at a checkpoint, because this worker is replaced. It goes on elsewhere. */
class Drained extends Error {
  constructor(reason) { super(`handed over: ${reason}`); this.name = 'Drained'; }
}
class Cancelled extends Error {
  constructor(reason) { super(reason); this.name = 'Cancelled'; }
}
/** A task with this key runs or is over. Nothing was begun. */
class Duplicate extends Error {
  constructor(answer) {
    super(`a task with this key is ${answer.dup}`);
    this.name = 'Duplicate';
    Object.assign(this, { state: answer.dup, outcome: answer.outcome, result: answer.result });
  }
}
/** An effect was begun by an earlier worker and never ended. The task is parked for a person to look at. */
class Indeterminate extends Error {
  constructor(message) { super(message); this.name = 'Indeterminate'; }
}

/** A UUIDv7: those of one time are kept beside each other. */
function newId() {
  const b = randomBytes(16);
  b.writeUIntBE(Date.now(), 0, 6);
  b[6] = (b[6] & 0x0f) | 0x70;
  b[8] = (b[8] & 0x3f) | 0x80;
  const h = b.toString('hex');
  return `${h.slice(0, 8)}-${h.slice(8, 12)}-${h.slice(12, 16)}-${h.slice(16, 20)}-${h.slice(20)}`;
}

const pack = (value) =>
  value instanceof Uint8Array ? { data: Buffer.from(value).toString('base64') } : { json: value === undefined ? null : value };
const unpack = (body) => (body.data != null ? Buffer.from(body.data, 'base64') : body.json);

class Link {
  constructor(path, token, hear, hello) {
    Object.assign(this, { path, token, hear, hello });
    this.n = 0;
    this.pending = new Map();
    this.beating = new Map();
    this.outbox = [];
    this.tries = 0;
    this.leaseMs = 30000;
    this.started = false;
    this.welcome = {};
  }

  /** Resolves with the answer. `heard` takes it when it is read, before anything that agentd said behind it. */
  ask(body, forget, heard) {
    if (this.refused) return Promise.reject(new Refused(this.refused.err, this.refused.msg));
    this.start();
    // A beat behind the end of a task would be taken for a zombie's.
    if (forget) this.beating.delete(forget);
    const n = ++this.n;
    const line = JSON.stringify({ ...body, n }) + '\n';
    return new Promise((resolve, reject) => {
      this.pending.set(n, { line, resolve, reject, heard });
      this.write(line);
      this.keepAlive();
    });
  }

  write(line) {
    if (this.outbox.push(line) === 1) setImmediate(() => this.flush());
  }

  flush() {
    const lines = this.outbox;
    this.outbox = [];
    // What is said while nobody listens is sent from `pending` at the next hello.
    if (this.open && lines.length) this.socket.write(lines.join(''));
  }

  start() {
    if (this.started) return;
    this.started = true;
    this.dial();
  }

  redial() {
    if (this.started && this.socket) this.socket.destroy();
  }

  /** Waiting for an answer keeps the process alive; listening alone does not. */
  keepAlive() {
    const wait = this.pending.size > 0 || this.serving;
    for (const handle of [this.socket, this.timer]) if (handle) wait ? handle.ref() : handle.unref();
  }

  dial() {
    if (this.refused) return;
    const socket = (this.socket = net.connect(this.path));
    let rest = '';
    socket.setEncoding('utf8');
    socket.on('connect', () => {
      this.outbox = [];
      const hello = { t: 'hello', n: 0, proto: 'agentd/1', token: this.token, pid: process.pid, ...this.hello() };
      socket.write(JSON.stringify(hello) + '\n' + [...this.pending.values()].map((call) => call.line).join(''));
      this.open = true;
      this.beats();
    });
    socket.on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop();
      for (const line of lines) this.read(JSON.parse(line));
      this.tries = 0;
      this.keepAlive();
    });
    socket.on('error', () => {});
    socket.on('close', () => {
      this.open = false;
      clearInterval(this.beater);
      this.timer = setTimeout(() => this.dial(), this.tries++ < 20 ? 50 : 1000);
      this.keepAlive();
    });
    this.keepAlive();
  }

  beats() {
    clearInterval(this.beater);
    this.beater = setInterval(() => this.beat(), this.leaseMs / 3);
    this.beater.unref();
  }

  beat() {
    const tasks = [...this.beating].map(([task, fence]) => ({ task, fence }));
    this.write(JSON.stringify({ t: 'beat', tasks }) + '\n');
  }

  read(word) {
    if (word.err === 'fenced' || word.t === 'fenced') {
      process.stderr.write(`agentd-worker: task ${word.task || ''} is another worker's by now: exit 75\n`);
      process.exit(EXIT_FENCED);
    }
    const call = word.re ? this.pending.get(word.re) : undefined;
    if (call) {
      this.pending.delete(word.re);
      if (word.ok && call.heard) call.heard(word);
      if (word.ok) call.resolve(word);
      else call.reject(new Refused(word.err, word.msg));
    } else if (word.t === 'ping') {
      this.beat();
    } else if (word.t) {
      this.hear(word);
    } else if (word.re === 0 && word.ok) {
      this.welcome = word;
      this.leaseMs = word.lease_ms;
      this.beats();
    } else if (['version', 'token', 'gone'].includes(word.err)) {
      process.stderr.write(`agentd-worker: agentd refused this worker: ${word.err}: ${word.msg}\n`);
      this.refused = word;
      for (const { reject } of this.pending.values()) reject(new Refused(word.err, word.msg));
      this.pending.clear();
    }
  }
}

/** What answers where there is no agentd: the same answers, from memory, kept by nobody. */
class Alone {
  constructor() {
    this.beating = new Map();
    this.effects = new Map();
    this.items = new Map();
    this.welcome = {};
  }
  start() {}
  redial() {}
  keepAlive() {}
  async ask(body, _forget, heard) {
    const answer = this.answer(body);
    if (heard) heard(answer);
    return answer;
  }
  answer(body) {
    const key = `${body.task}:${body.key}`;
    switch (body.t) {
      case 'task.begin': return { task: body.task, fence: 1, attempt: 1 };
      case 'effect.begin': return this.effects.has(key) ? { state: 'done', result: this.effects.get(key) } : { state: 'new', key };
      case 'effect.end': if (body.ok) this.effects.set(key, body.result); return {};
      case 'task.end': case 'task.yield':
        for (const k of this.effects.keys()) if (k.startsWith(`${body.task}:`)) this.effects.delete(k);
        return {};
      default: return body.t.startsWith('kv.') ? this.kept(body) : {};
    }
  }
  kept(body) {
    const items = this.items.get(body.ns) || this.items.set(body.ns, new Map()).get(body.ns);
    if (body.t === 'kv.put') {
      return { put: body.items.map(({ key, if_absent: absent, ...value }) => {
        if (absent && items.has(key)) return JSON.stringify(items.get(key)) === JSON.stringify(value);
        return items.set(key, value), true;
      }) };
    }
    if (body.t === 'kv.get') return items.has(body.key) ? { found: true, ...items.get(body.key) } : { found: false };
    let keys = [...items.keys()].filter((k) => (body.key != null ? k === body.key : k.startsWith(body.prefix || ''))).sort();
    if (body.t === 'kv.del') return keys.forEach((k) => items.delete(k)), { deleted: keys.length };
    if (body.after != null) keys = keys.filter((k) => (body.reverse ? k < body.after : k > body.after));
    if (body.reverse) keys.reverse();
    const limit = body.limit || 100;
    return { items: keys.slice(0, limit).map((key) => ({ key, ...items.get(key) })), more: keys.length > limit };
  }
}

//   begin ──► running ──► ended        the end of the function, or what it throws (outcome error or cancelled)
//                     ├─► yielded      save() while the worker drains: Drained is thrown
//                     └─► parked       an effect of which nobody knows whether it was done: Indeterminate
class Task {
  constructor(worker, said) {
    this.worker = worker;
    this.id = said.task || newId();
    for (const name of ['key', 'kind', 'session', 'input', 'traceparent']) this[name] = said[name];
    Object.assign(this, { fence: 0, attempt: 1, checkpoint: null, state: 'new', figures: {}, result: undefined });
    this.abort = new AbortController();
    this.signal = this.abort.signal;
  }

  get shouldYield() { return this.worker.draining; }

  about(t, fields) { return { t, task: this.id, fence: this.fence, ...fields }; }
  ask(t, fields, forget) { return this.worker.link.ask(this.about(t, fields), forget); }

  took(answer) {
    Object.assign(this, { id: answer.task, fence: answer.fence, attempt: answer.attempt || 1, state: 'running' });
    if (answer.ckpt) this.checkpoint = { step: answer.ckpt.step, state: unpack(answer.ckpt), stateVersion: answer.ckpt.state_version };
    this.worker.hold(this);
    return this;
  }

  async begin() {
    const { id: task, key, kind, session, input, traceparent } = this;
    // A `cancel` may stand right behind the answer.
    const heard = (answer) => answer.dup || this.took(answer);
    const answer = await this.worker.link.ask({ t: 'task.begin', task, key, kind, session, input, traceparent }, undefined, heard);
    if (answer.dup) throw new Duplicate(answer);
    return this;
  }

  look() { if (this.cancelled !== undefined) throw new Cancelled(this.cancelled); }

  /** Resolves when the checkpoint is durable. Throws Drained after it when the worker drains and it is safe. */
  async save(step, state, { safe = true, stateVersion } = {}) {
    this.look();
    await this.ask('ckpt', { step, safe, state_version: stateVersion, ...pack(state) });
    this.checkpoint = { step, state, stateVersion };
    this.checkpointWanted = false;
    if (safe && this.worker.draining) await this.yield('drain');
  }

  /** Hands the task over from its last checkpoint: throws Drained, unless nobody could go on from here. */
  async yield(reason = 'asked') {
    try {
      await this.ask('task.yield', { step: this.checkpoint ? this.checkpoint.step : 0, reason }, this.id);
    } catch (error) {
      if (error.code !== 'conflict') throw error;
      this.worker.hold(this);
      return;
    }
    this.leave('yielded');
    throw new Drained(reason);
  }

  /** Runs `run(idempotencyKey)` once for this key of the task, and gives its result every time. The result is JSON. */
  async effect(kind, key, run, { desc, compensate } = {}) {
    this.look();
    const answer = await this.ask('effect.begin', { key, kind, desc, compensate });
    if (answer.state === 'done') return answer.result;
    if (answer.state === 'intent' && answer.policy === 'skip') return undefined;
    if (answer.state === 'intent' && answer.policy !== 'retry') {
      this.leave('parked');
      throw new Indeterminate(`effect ${key} of task ${this.id} was begun and never ended; see agentctl effects`);
    }
    let result;
    try {
      result = await run(answer.key);
    } catch (error) {
      await this.ask('effect.end', { key, ok: false, error: String(error) });
      throw error;
    }
    await this.ask('effect.end', { key, ok: true, result });
    return result;
  }

  /** Says how it ended: a result, and tokens_in, tokens_out, cost_usd, … Sent when the function is over. */
  done(result, figures = {}) { Object.assign(this, { result, figures }); }

  async end(error) {
    if (this.state !== 'running') return;
    const outcome = !error ? 'ok' : this.cancelled !== undefined ? 'cancelled' : 'error';
    const wrong = error ? { error: String(error) } : {};
    await this.ask('task.end', { outcome, result: this.result, ...wrong, ...this.figures }, this.id);
    this.leave(outcome);
  }

  leave(state) { this.state = state; this.worker.release(this); }
}

class Worker {
  constructor({ maxTasks = 16 } = {}) {
    const { AGENTD_WORKER_SOCKET: path, AGENTD_WORKER_TOKEN: token } = process.env;
    this.inside = Boolean(path && token);
    this.link = this.inside ? new Link(path, token, (word) => this.hear(word), () => this.hello()) : new Alone();
    Object.assign(this, { maxTasks, handlers: new Map(), held: new Map(), drain: null, whenIdle: [] });
    Object.assign(this, { onDrain: [], onUndrain: [], onRefresh: [] });
  }

  get draining() { return this.drain !== null; }

  hello() {
    return { sdk: SDK, caps: ['checkpoint', 'drain', 'kv', 'refresh'], max_tasks: this.handlers.size ? this.maxTasks : 0 };
  }

  async ready() { await this.link.ask({ t: 'ready' }); }

  /** Begins a task that is ended by hand: `await task.end(error?)`. */
  begin(options = {}) { return new Task(this, options).begin(); }

  /** Runs `body(task)` as a task, and gives its value. What it throws ends the task as an error. */
  async task(options, body) { return this.inTask(await this.begin(options), body); }

  async inTask(task, body) {
    return scope.run(task, async () => {
      let value;
      try {
        value = await body(task);
      } catch (error) {
        await task.end(error);
        throw error;
      }
      await task.end();
      return value;
    });
  }

  /** Takes tasks of `kind` (null: of every other kind). The value of `run(task)` is the result. */
  onTask(kind, run) {
    this.handlers.set(kind, run);
    this.link.redial();
  }

  /** Is ready, and runs what agentd gives until it is told to stop and nothing is in hand. */
  async serve() {
    const stopped = new Promise((stop) => ['SIGTERM', 'SIGINT'].forEach((name) => process.once(name, stop)));
    this.link.serving = true;
    const alive = setInterval(() => {}, 1 << 30);
    await this.ready();
    await stopped;
    if (this.held.size) await new Promise((idle) => this.whenIdle.push(idle));
    this.link.serving = false;
    clearInterval(alive);
    this.link.keepAlive();
  }

  hear(word) {
    const held = this.held.get(word.task);
    switch (word.t) {
      case 'task.run': if (!held) this.run(word); break;
      case 'drain': this.drain = word; this.tell(this.onDrain, word); break;
      case 'undrain': this.drain = null; this.tell(this.onUndrain); break;
      case 'refresh': this.refresh(word); break;
      case 'ckpt.now': if (held) held.checkpointWanted = true; break;
      case 'cancel':
        if (held) { held.cancelled = word.reason || 'cancelled'; held.abort.abort(new Cancelled(held.cancelled)); }
        break;
      default: // A newer agentd's; skipped.
    }
  }

  tell(who, what) {
    for (const call of who) try { call(what); } catch (error) { console.error(error); }
  }

  async refresh(word) {
    const said = { t: 'refreshed', refresh: word.refresh, ok: this.onRefresh.length > 0 };
    if (!said.ok) said.error = 'has nothing that renews what it knows: `worker.onRefresh` is empty';
    for (const call of this.onRefresh) {
      try { await call(word.scope); } catch (error) {
        console.error(error);
        Object.assign(said, { ok: false, error: String(error).slice(0, 1000) });
      }
    }
    try { await this.link.ask(said); } catch (error) { console.error(error); }
  }

  async run(word) {
    const handler = this.handlers.get(word.kind) || this.handlers.get(null);
    const task = new Task(this, word).took(word);
    try {
      await this.inTask(task, async () => {
        if (!handler) throw new Error(`no handler for kind ${word.kind}`);
        const result = await handler(task);
        if (task.result === undefined) task.result = result;
      });
    } catch (error) {
      if (!(error instanceof Drained || error instanceof Cancelled)) console.error(error);
    }
  }

  hold(task) { this.held.set(task.id, task); this.link.beating.set(task.id, task.fence); }

  release(task) {
    this.held.delete(task.id);
    this.link.beating.delete(task.id);
    if (!this.held.size) this.whenIdle.splice(0).forEach((idle) => idle());
  }

  /** A small durable store of the app's own. Inside a task its writes are fenced: a zombie's are refused. */
  kv(ns) {
    const ask = (t, fields) => this.link.ask({ t, ns, ...fields });
    const fence = () => {
      const task = scope.getStore();
      return task && task.worker === this && task.state === 'running' ? { task: task.id, fence: task.fence } : {};
    };
    return {
      put: async (key, value, { ifAbsent } = {}) =>
        (await ask('kv.put', { items: [{ key, ...pack(value), ...(ifAbsent ? { if_absent: true } : {}) }], ...fence() })).put[0],
      get: async (key) => { const found = await ask('kv.get', { key }); return found.found ? unpack(found) : undefined; },
      scan: async (prefix = '', how = {}) =>
        (await ask('kv.scan', { prefix, ...how })).items.map((item) => [item.key, unpack(item)]),
      delete: async (which) => (await ask('kv.del', { ...(typeof which === 'string' ? { key: which } : which), ...fence() })).deleted,
    };
  }
}

/** Makes each request a task: `app.use(middleware(worker))`, also for a bare `http` server. `req.task` is the task. */
function middleware(worker, { kind = (req) => req.headers['x-task-kind'] || 'http' } = {}) {
  return (req, res, next) => {
    const options = { kind: kind(req), key: req.headers['idempotency-key'], session: req.headers['x-session-id'], traceparent: req.headers.traceparent };
    worker.begin(options).then((task) => {
      req.task = task;
      res.once('close', () => {
        const left = res.writableFinished ? undefined : 'whoever asked left in the middle of the answer';
        if (left) task.cancelled = left;
        task.end(left ?? (res.statusCode >= 500 ? `status ${res.statusCode}` : undefined)).catch((error) => console.error(error));
      });
      scope.run(task, next);
    }, (error) => {
      if (!(error instanceof Duplicate)) return next(error);
      res.statusCode = 409;
      res.setHeader('content-type', 'application/json');
      res.end(JSON.stringify({ dup: error.state, outcome: error.outcome, result: error.result }));
    });
  };
}

module.exports = { Worker, Task, Refused, Drained, Cancelled, Duplicate, Indeterminate, middleware };
