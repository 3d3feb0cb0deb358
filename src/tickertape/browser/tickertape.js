// tickertape: EventSource over fetch, one stream for all tabs. See docs/reference/browser.md.

const RETRY = 3e3;
const MIN_RETRY = 500;
const MAX_RETRY = 3e5;
const SILENCE = 3e5;
const MAX_DELAY = 3e4;
const MIN_SILENCE = 3e4;
const MAX_WAIT = 36e5;
const SETTLE = 50;
const PROBE = 5e3;
const MAX_EVENT = 8e6;

const valueOf = (option) => (option?.call ? option() : option);

const failure = (reason, details) => Object.assign(new Error(reason), details);

const fieldsOf = (text) => {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
};

// Of cursors: <epoch>-<offset>.
const isUpTo = (id, other) => {
  const [[epoch, offset], [log, limit]] = [id.split("-"), other.split("-")];
  return epoch === log && +offset <= +limit;
};

const check = async (response, isExpected) => {
  if (isExpected) return response;
  const { status, headers } = response;
  const problem = fieldsOf(await response.text());
  const after = headers.get("Retry-After");
  const wait = Math.min((after > 0 ? after * 1e3 : Date.parse(after) - Date.now()) || 0, MAX_WAIT);
  throw failure(problem.detail ?? `status ${status}`, { status, problem, wait });
};

// By WHATWG HTML. A block without data has no type.
async function* blocksOf(body, source) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let id = source.lastEventId;
  let [rest, data, type, size, afterCR] = ["", "", "", 0];
  for (;;) {
    const { value: bytes, done } = await reader.read();
    if (done) return;
    source.longest = Math.max(source.longest, Date.now() - source.seen);
    source.seen = Date.now();
    let text = decoder.decode(bytes, { stream: true });
    if (!text) continue;
    if (afterCR && text[0] === "\n") text = text.slice(1);
    afterCR = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = rest + lines[0];
    rest = lines.pop();
    for (const line of lines) {
      const [, field, value = ""] = /^([^:]*)(?:: ?([^]*))?$/.exec(line);
      size += line.length;
      if (!line) {
        yield data ? { type: type || "message", data: data.slice(1), id } : { id };
        [data, type, size] = ["", "", 0];
      } else if (field === "data") data += `\n${value}`;
      else if (field === "event") type = value;
      else if (field === "id" && !value.includes("\0")) id = value;
      else if (field === "retry" && /^\d+$/.test(value)) source.retry = +value;
      else if (!field) source.hasHeartbeat = true;
    }
    if (size + rest.length > MAX_EVENT) throw failure("event too large", { status: 200 });
  }
}

function createSource(url, options, emit) {
  const { body, credentials, headers, method = "GET", silence, ticket, withCredentials } = options;
  const common = { cache: "no-store", credentials: withCredentials ? "include" : credentials };
  const source = { url, lastEventId: "", longest: 0, open, wake, close };
  let abort = new AbortController();
  let failures = 0;
  let state, timer, isRenewed;

  function open() {
    close();
    attempt(abort.signal);
  }

  function wake() {
    if (state === "waiting" || (state === "open" && left() < 0)) {
      failures = 0;
      open();
    }
  }

  function close() {
    clearTimeout(timer);
    abort.abort();
    abort = new AbortController();
  }

  function set(changed, details) {
    state = changed;
    emit({ state, ...details });
  }

  async function attempt(signal) {
    let error, hasEvents, isHub;
    source.seen = Date.now();
    watch();
    set("connecting");
    try {
      const response = await request(signal);
      const found = response.headers.get("Content-Type");
      if (!/^text\/event-stream *(;|$)/i.test(found)) throw failure(`unexpected type: ${found}`, { status: 200 });
      if (signal.aborted) return;
      set("open");
      const { origin } = new URL(response.url || source.url);
      for await (const block of blocksOf(response.body, source)) {
        const { type, data, id } = block;
        const [, notice] = /^stream:(.*)/.exec(type) ?? [];
        // Only a hub begins so, without data or with a notice.
        source.isHub = isHub ??= /^\w+-\d+$/.test(id) && (!type || !!notice);
        source.lastEventId = id;
        hasEvents ||= type && !notice;
        emit({ ...block, origin, notice, isHub });
        if (signal.aborted) return;
        if (notice === "error") throw failure(fieldsOf(data).message);
        if (notice === "expired") throw failure("expired", { notice });
      }
    } catch (caught) {
      error = caught;
    }
    if (signal.aborted) return;
    if (hasEvents) failures = isRenewed = 0;
    const details = error ? { reason: error.message, ...error } : { reason: "the stream ended" };
    const { status, wait, notice } = details;
    if (error ? status < 500 && status !== 429 : !/^(GET|HEAD|QUERY)$/i.test(method)) {
      close();
      set("closed", details);
    } else if (notice && !isRenewed) {
      isRenewed = true;
      open();
    } else lose(details, wait, !error && hasEvents);
  }

  async function request(signal) {
    const sent = new Headers(await valueOf(headers));
    const target = new URL(source.url);
    if (!sent.has("Accept")) sent.set("Accept", "text/event-stream");
    const id = new TextEncoder().encode(source.lastEventId);
    if (id.length) sent.set("Last-Event-ID", String.fromCharCode(...id));
    if (ticket) {
      const topics = target.searchParams.getAll("topic");
      const body = new Blob([JSON.stringify({ topics })], { type: "application/json" });
      const answer = await fetch(new URL(ticket, target), { ...common, signal, method: "POST", body });
      target.searchParams.set("ticket", (await (await check(answer, answer.ok)).json()).ticket);
    }
    const response = await fetch(target, { ...common, signal, method, headers: sent, body: await valueOf(body) });
    return check(response, response.status === 200);
  }

  function left() {
    const learned = source.hasHeartbeat ? 3 * source.longest + MIN_SILENCE : SILENCE;
    return source.seen + (silence ?? learned) - Date.now();
  }

  function watch() {
    if (left() > 0) timer = setTimeout(watch, left());
    else {
      source.hasHeartbeat = source.longest = 0;
      lose({ reason: "the server was silent" });
    }
  }

  function lose(details, wait = 0, isEnd) {
    const least = Math.min(Math.max(source.retry ?? RETRY * Math.random(), MIN_RETRY), MAX_RETRY);
    const most = Math.max(least, Math.min(least * 2 ** failures, MAX_DELAY));
    const delay = Math.max(least + Math.random() * (most - least), wait);
    failures += !isEnd;
    close();
    timer = setTimeout(open, delay);
    set("waiting", { ...details, retryAt: Date.now() + delay });
  }

  return source;
}

const hold = (name, mode, signal) =>
  new Promise((granted) => {
    const held = () => new Promise((release) => granted(signal.addEventListener("abort", release)));
    navigator.locks.request(name, { mode, signal }, held).catch(() => {});
  });

const expressionOf = (pattern) => {
  const escaped = `/${pattern}`.replace(/[^\w/*]/g, "\\$&");
  return new RegExp(`^${escaped.replace(/\/\*\*|\*/g, (star) => (star[1] ? "(/[^/]+)*" : "[^/]+"))}$`);
};

// One stream for all tabs. Each holds a lock with its topics, and waits for that of the leader. It sends its cursor;
// the leader opens the stream again if the tab needs more, and then admits the tab.
function createGroup(url, options, emit) {
  const group = { lastEventId: "", open, wake, close };
  const me = Math.random();
  const base = new URL(url);
  const query = base.searchParams;
  const topics = query.getAll("topic");
  const wanted = topics.map(expressionOf);
  const last = +query.get("last");
  const hasEnvelope = query.has("envelope");
  query.delete("topic");
  query.delete("last");
  if (topics[0]) query.set("envelope", "topic");
  const lock = `tickertape ${options.shared} ${base}`;
  let abort = new AbortController();
  let channel, isMember, isHub;
  // Of the leader:
  let source, state, covered, waiting, oldest, timer;

  function open() {
    close();
    abort = new AbortController();
    waiting = [];
    channel = new BroadcastChannel(lock);
    channel.onmessage = ({ data }) => receive(data);
    emit({ state: "connecting" });
    join(abort.signal);
  }

  function wake() {
    if (source) source.wake();
    else channel?.postMessage({ wake: 1 });
  }

  function close() {
    source?.close();
    channel?.close();
    abort.abort();
    clearTimeout(timer);
    source = channel = oldest = timer = isMember = undefined;
  }

  async function join(signal) {
    await hold(`${lock} ${JSON.stringify(topics)}`, "shared", signal);
    // With its own question, all messages of the last leader have arrived.
    hold(lock, "exclusive", signal).then(() => new BroadcastChannel(lock).postMessage({ ask: me }));
    await findStart(await tabs(), signal);
    if (!signal.aborted) hello();
  }

  const hello = () => channel.postMessage({ hello: group.lastEventId, from: me, topics });

  async function tabs() {
    const { held } = await navigator.locks.query();
    return held.flatMap(({ name }) => (name.startsWith(`${lock} `) ? [JSON.parse(name.slice(lock.length))] : []));
  }

  const findStart = ({ length }, signal) =>
    new Promise((found) => {
      const probe = createSource(url, { ...options, silence: PROBE }, ({ state, id }) => {
        if (probe.isHub) group.lastEventId ||= id;
        if (!/connecting|open/.test(state)) done();
      });
      const done = () => found(probe.close());
      signal.addEventListener("abort", done);
      if (!last || group.lastEventId || length < 2) done();
      else probe.open();
    });

  function receive(message) {
    const { ask } = message;
    if (ask === me) {
      source = createSource(url, options, pass);
      source.isHub = isHub;
      isMember = true;
      reopen();
    } else if (ask) hello();
    else if (!source) take(message);
    else if (message.wake) source.wake();
    else if (message.topics) welcome(message);
  }

  async function reopen() {
    const { signal } = abort;
    const admitted = waiting.splice(0);
    const start = oldest;
    oldest = timer = undefined;
    const all = await tabs();
    await findStart(all, signal);
    if (signal.aborted) return;
    covered = [...new Set(all.flat())];
    const target = new URL(base);
    for (const topic of covered) target.searchParams.append("topic", topic);
    if (last && !all[1]) target.searchParams.set("last", last);
    source.url = target;
    source.lastEventId = isBehind(start) ? start : source.lastEventId || group.lastEventId;
    source.open();
    admit(admitted);
  }

  const admit = (admitted) => channel.postMessage({ ...state, admitted, position: group.lastEventId });

  const isBehind = (id) => id && (!source.lastEventId || (source.isHub && !isUpTo(source.lastEventId, id)));

  function welcome({ hello, from, topics }) {
    if (isBehind(hello) && !(oldest && isUpTo(oldest, hello))) oldest = hello;
    if (isBehind(hello) || !topics.every((topic) => covered?.includes(topic))) {
      waiting.push(from);
      timer ??= setTimeout(reopen, SETTLE);
    } else admit([from]);
  }

  function pass(message) {
    if (message.state) state = message;
    channel.postMessage(message);
    take(message);
  }

  function take(message) {
    const { admitted, position, id, notice } = message;
    if (admitted?.includes(me) && !isMember) {
      isMember = true;
      group.lastEventId ||= position;
    }
    if (!isMember) return;
    if (message.state === "closed") close();
    if (message.state) return emit(message);
    if (id === undefined) return;
    isHub = message.isHub;
    if (isHub && isUpTo(id, group.lastEventId) && !(notice && id === group.lastEventId)) return;
    group.lastEventId = id;
    const { topic, data } = notice || !topics[0] ? {} : fieldsOf(message.data);
    if (!topic) emit(message);
    else if (!wanted.some((each) => each.test(`/${topic}`))) emit({ id });
    else emit(hasEnvelope ? message : { ...message, data });
  }

  return group;
}

export class EventStream extends EventTarget {
  static CONNECTING = 0;
  static OPEN = 1;
  static CLOSED = 2;
  CONNECTING = 0;
  OPEN = 1;
  CLOSED = 2;
  state = "closed";
  #options;
  #source;
  #key;
  #running;

  constructor(url, options = {}) {
    super();
    this.url = new URL(url, globalThis.document?.baseURI ?? globalThis.location).href;
    const { persist, shared, method = "GET" } = options;
    this.#options = options;
    this.withCredentials = !!options.withCredentials;
    this.#key = persist && `tickertape ${persist} ${this.url}`;
    this.lastEventId = options.lastEventId ?? this.#store("getItem") ?? "";
    for (const type of ["open", "message", "error"]) {
      this[`on${type}`] = null;
      this.addEventListener(type, (event) => this[`on${type}`]?.(event));
    }
    const create = shared && method === "GET" && globalThis.navigator?.locks ? createGroup : createSource;
    this.#source = create(this.url, options, (message) => this.#take(message));
    this.open();
  }

  get readyState() {
    return { open: 1, closed: 2 }[this.state] ?? 0;
  }

  open() {
    if (this.state !== "closed") return;
    const { signal } = (this.#running = new AbortController());
    const listen = (type, listener) => globalThis.addEventListener?.(type, listener, { signal });
    listen("online", () => this.#source.wake());
    listen("visibilitychange", () => document.hidden || this.#source.wake());
    listen("pagehide", () => this.#stop());
    listen("pageshow", ({ persisted }) => persisted && this.#start());
    this.#start();
  }

  close() {
    this.#take({ state: "closed" });
  }

  #start() {
    this.#source.lastEventId = this.lastEventId;
    this.#source.open();
  }

  #stop() {
    this.#source.close();
    this.#store("setItem", this.lastEventId);
  }

  #take(message) {
    const { state, type, data, id, origin, notice } = message;
    if (state === this.state) return;
    if (state) return this.#change(message);
    this.lastEventId = id;
    if (data !== undefined) {
      const event = new MessageEvent(type, { data, lastEventId: id, origin });
      this.#options.every?.(event);
      this.dispatchEvent(event);
    }
    if (notice && notice !== "error") this.dispatchEvent(new CustomEvent(notice, { detail: fieldsOf(data) }));
    if (notice === "end") this.close();
  }

  #change({ state, reason = "", retryAt = 0, status, problem }) {
    Object.assign(this, { state, reason, retryAt });
    if (state === "closed") {
      this.#running.abort();
      this.#stop();
    }
    this.#fire("statechange");
    if (state === "open") this.#fire("open");
    if (reason) this.#fire("error", { reason, retryAt, status, problem });
  }

  #fire(type, fields) {
    this.dispatchEvent(Object.assign(new Event(type), fields));
  }

  #store(method, value) {
    try {
      return this.#key && sessionStorage[method](this.#key, value);
    } catch {}
  }
}
