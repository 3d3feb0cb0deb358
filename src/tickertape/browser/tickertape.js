// tickertape: EventSource over fetch, one stream for all tabs. See docs/reference/browser.md.

const RETRY = 3e3;
const MIN_RETRY = 500;
const MAX_RETRY = 3e5;
const SILENCE = 3e5;
const MAX_DELAY = 3e4;
const MIN_SILENCE = 3e4;
const MAX_WAIT = 36e5;
const SETTLE = 50;
const PATROL = 15e3;
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

const COMPLETE = { state: "closed", reason: "all topics have ended", status: 204 };

const jsonOf = (value) => new Blob([JSON.stringify(value)], { type: "application/json" });

const changed = (topics, add, remove) => [...new Set(topics.filter((each) => !remove.includes(each)).concat(add))];

const topicsOf = ({ searchParams }) => searchParams.getAll("topic");

const setTopics = ({ searchParams }, topics) => {
  searchParams.delete("topic");
  for (const topic of topics) searchParams.append("topic", topic);
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
  let [rest, data, type, size, hasId, afterCR] = ["", "", "", 0];
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
        yield data ? { type: type || "message", data: data.slice(1), id, hasId } : { id, hasId };
        [data, type, size, hasId] = ["", "", 0];
      } else if (field === "data") data += `\n${value}`;
      else if (field === "event") type = value;
      else if (field === "id" && !value.includes("\0")) [id, hasId] = [value, true];
      else if (field === "retry" && /^\d+$/.test(value)) source.retry = +value;
      else if (!field) source.hasHeartbeat = true;
    }
    if (size + rest.length > MAX_EVENT) throw failure("event too large", { status: 200 });
  }
}

function createSource(url, options, emit) {
  const { body, credentials, headers, method = "GET", silence, ticket, withCredentials } = options;
  const common = { cache: "no-store", credentials: withCredentials ? "include" : credentials };
  const source = { url: new URL(url), lastEventId: "", longest: 0, open, wake, close, change, isBehind };
  let abort = new AbortController();
  let failures = 0;
  let renewed = 0;
  let state, timer;

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
    source.subscription = undefined;
  }

  function isBehind(id) {
    return id && (!source.lastEventId || (source.isHub && !isUpTo(source.lastEventId, id)));
  }

  // By PATCH, or by another request from the cursor. A tab at `hello` needs all events of the added topics after it.
  async function change(add, remove, last, hello, done) {
    const id = !ticket && source.subscription;
    let isLate;
    if (id) {
      const sent = { ...common, method: "PATCH", headers: await valueOf(headers), body: jsonOf({ add, remove, last }) };
      const answer = await fetch(new URL(`subscriptions/${id}`, source.url), sent).catch(() => ({ status: 500 }));
      if (answer.status < 500 && !/40[45]/.test(answer.status)) {
        const { cursor } = fieldsOf(await (await check(answer, answer.ok)).text());
        isLate = hello && cursor && add[0] && !isUpTo(cursor, hello);
      } else source.subscription = undefined;
    }
    setTopics(source.url, changed(topicsOf(source.url), add, remove));
    source.url.searchParams.set("subscription", true);
    const isEarlier = isBehind(hello);
    if (isLate || isEarlier || !id || id !== source.subscription) {
      if (isEarlier) source.lastEventId = hello;
      if (/connecting|open/.test(state)) open();
    }
    done?.();
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
        if (notice === "open") source.subscription = fieldsOf(data).subscription;
        else emit({ ...block, origin, notice, isHub });
        if (signal.aborted) return;
        if (notice === "error") throw failure(fieldsOf(data).message);
        if (notice === "expired") throw failure("expired", { notice });
      }
    } catch (caught) {
      error = caught;
    }
    if (signal.aborted) return;
    if (hasEvents) failures = renewed = 0;
    const details = error ? { reason: error.message, ...error } : { reason: "the stream ended" };
    const { status, wait, notice } = details;
    if (error ? status < 500 && status !== 429 : !/^(GET|HEAD|QUERY)$/i.test(method)) {
      close();
      set("closed", details);
    } else if (notice && Date.now() - renewed > RETRY) {
      renewed = Date.now();
      open();
    } else lose(details, wait, !error && hasEvents);
  }

  async function request(signal) {
    const sent = new Headers(await valueOf(headers));
    const target = new URL(source.url);
    if (ticket) {
      const body = jsonOf({ topics: topicsOf(target) });
      const answer = await fetch(new URL(ticket, target), { ...common, signal, method: "POST", headers: sent, body });
      target.searchParams.set("ticket", (await (await check(answer, answer.ok)).json()).ticket);
    }
    if (!sent.has("Accept")) sent.set("Accept", "text/event-stream");
    const id = new TextEncoder().encode(source.lastEventId);
    if (id.length) sent.set("Last-Event-ID", String.fromCharCode(...id));
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

// Resolves with a function that releases the lock, or with nothing if the request was aborted.
const hold = (name, mode, signal) =>
  new Promise((granted) => {
    const held = () => new Promise((release) => granted(release, signal.addEventListener("abort", release)));
    navigator.locks.request(name, { mode, signal }, held).catch(() => granted());
  });

const expressionOf = (pattern) => {
  const escaped = `/${pattern}`.replace(/[^\w/*]/g, "\\$&");
  return new RegExp(`^${escaped.replace(/\/\*\*|\*/g, (star) => (star[1] ? "(/[^/]+)*" : "[^/]+"))}$`);
};

// One stream for all tabs. Each holds a lock with its topics, and waits for that of the leader. It sends its cursor;
// the leader opens the stream again if the tab needs more, and then admits the tab.
function createGroup(url, options, emit) {
  const group = { lastEventId: "", open, wake, close, change };
  const me = Math.random();
  const base = new URL(url);
  const query = base.searchParams;
  const last = +query.get("last");
  const hasEnvelope = query.has("envelope");
  const ended = new Set();
  let topics = topicsOf(base);
  const isNarrow = topics[0];
  query.delete("topic");
  query.delete("last");
  if (isNarrow) query.set("envelope", "topic");
  if (isNarrow) query.set("subscription", true);
  let abort = new AbortController();
  let queue = Promise.resolve();
  let lock, channel, wanted, release, answer, isMember, isHub;
  // Of the leader:
  let leaving = [];
  let source, state, waiting, timer, patrol;

  function open() {
    close();
    abort = new AbortController();
    waiting = [];
    lock = `tickertape ${valueOf(options.shared)} ${base}`;
    channel = new BroadcastChannel(lock);
    channel.onmessage = ({ data }) => receive(data);
    emit({ state: "connecting" });
    const { signal } = abort;
    enqueue(() => join(signal));
  }

  function wake() {
    if (source) source.wake();
    else channel?.postMessage({ wake: 1 });
  }

  function close() {
    source?.close();
    channel?.postMessage({ left: 1 });
    channel?.close();
    abort.abort();
    clearTimeout(timer);
    clearInterval(patrol);
    answer = answer?.[0]();
    source = channel = timer = isMember = undefined;
  }

  const enqueue = (work) => (queue = queue.then(work, work));

  async function join(signal) {
    await use();
    if (signal.aborted) return;
    // With its own question, all messages of the last leader have arrived.
    hold(lock, "exclusive", signal).then(() => signal.aborted || new BroadcastChannel(lock).postMessage({ ask: me }));
    await findStart(await tabs(), signal);
    if (!signal.aborted) hello();
  }

  const hello = () => channel.postMessage({ hello: group.lastEventId, from: me, topics });

  async function use() {
    const before = release;
    wanted = topics.map(expressionOf);
    release = await hold(`${lock} ${JSON.stringify(topics)}`, "shared", abort.signal);
    before?.();
  }

  function change(add, remove) {
    const { signal } = abort;
    return enqueue(ask);

    // If the stream is closed or was opened again, the next one begins with the topics.
    async function ask() {
      const before = topics;
      const after = changed(topics, add, remove);
      if (!after[0]) throw failure("a subscription needs at least one topic");
      topics = after;
      if (!signal.aborted) await use();
      if (signal.aborted) return;
      const message = { hello: isMember ? "" : group.lastEventId, from: me, topics };
      const answered = new Promise((...both) => (answer = both));
      if (source) welcome(message);
      else channel.postMessage(message);
      await answered.catch(async (error) => {
        topics = before;
        await use();
        throw error;
      });
    }
  }

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
      source.lastEventId = group.lastEventId;
      isMember = timer = true;
      patrol = setInterval(later, PATROL);
      start();
    } else if (ask) hello();
    else if (!source) take(message);
    else if (message.wake) source.wake();
    else if (message.topics) welcome(message);
    else if (message.left) later();
  }

  async function start() {
    const { signal } = abort;
    const all = await tabs();
    await findStart(all, signal);
    if (signal.aborted) return;
    const { lastEventId } = group;
    source.url = new URL(base);
    if (last && !all[1]) source.url.searchParams.set("last", last);
    // Without a cursor nothing is missed if the others join later.
    setTopics(source.url, changed(topics, lastEventId ? all.flat() : [], []));
    source.lastEventId = lastEventId;
    source.open();
    admit([me]);
    timer = setTimeout(update, SETTLE);
  }

  // A tab that crashed does not say that it left: the patrol finds it.
  function later(wait = SETTLE) {
    timer ??= setTimeout(update, wait);
  }

  // One tab after the other: a refused topic concerns one.
  async function update() {
    const { signal } = abort;
    let delay;
    for (const each of waiting.splice(0)) {
      const { hello, from, topics } = each;
      try {
        await source.change(changed(topics, [], covered()), [], 0, hello, () => admit([from]));
      } catch ({ message, status, problem, wait }) {
        if (status === 429) {
          waiting.push(each);
          delay = Math.max(wait, RETRY);
        } else pass({ refused: from, reason: message, status, problem });
      }
      if (signal.aborted) return;
    }
    const all = (await tabs()).flat();
    if (signal.aborted) return;
    // A tab that wants one of these topics in the meantime waits for the next update.
    if (!waiting[0] && source.subscription) leaving = covered().filter((each) => !all.includes(each));
    if (leaving[0]) await source.change([], leaving).catch(() => {});
    if (signal.aborted) return;
    leaving = [];
    timer = undefined;
    if (waiting[0]) later(delay);
  }

  const covered = () => topicsOf(source.url).filter((each) => !leaving.includes(each));

  const admit = (admitted) => pass({ ...state, admitted, position: group.lastEventId, past: [...ended] });

  function welcome({ hello, from, topics }) {
    if (!source.isBehind(hello) && !changed(topics, [], covered())[0]) return admit([from]);
    waiting.push({ hello, from, topics });
    later();
  }

  function pass(message) {
    if (message.state) state = message;
    channel.postMessage(message);
    take(message);
  }

  function take(message) {
    const { admitted, refused, reason, position, past, hasId, notice } = message;
    let { id } = message;
    if (admitted?.includes(me)) {
      isMember = true;
      group.lastEventId ||= position;
      answer = answer?.[0]();
      // If the tab is behind, the ends follow in the stream.
      if (isUpTo(position, group.lastEventId) && isComplete(past)) return emit(COMPLETE);
    }
    if (refused === me) {
      if (answer) answer = answer[1](failure(reason, message));
      else emit({ ...message, state: "closed" });
    }
    if (!isMember) return;
    if (message.state === "closed") close();
    if (message.state) return emit(message);
    if (id === undefined) return;
    isHub = message.isHub;
    // An event without an id is not in the log, and never repeated.
    if (isHub && !hasId) id = group.lastEventId;
    else if (isHub && isUpTo(id, group.lastEventId) && (!notice || notice === "gap" || id !== group.lastEventId)) return;
    group.lastEventId = id;
    const fields = !isNarrow || (notice && !/^topic/.test(notice)) ? {} : fieldsOf(message.data);
    const { topic, data } = fields;
    const isLast = notice && isComplete(fields.ended ?? (topic ? [topic] : []));
    if (notice === "topics") return emit(isLast ? COMPLETE : { id });
    if (!topic) emit({ ...message, id });
    else if (!wanted.some((each) => each.test(`/${topic}`))) emit({ id });
    else if (notice) emit({ ...message, ...(isLast && { notice: "end", type: "stream:end" }) });
    else emit(hasEnvelope ? message : { ...message, data });
  }

  function isComplete(more) {
    for (const each of more) ended.add(each);
    return isNarrow && topics.every((each) => ended.has(each));
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

  subscribe(topics, { last } = {}) {
    return this.#source.change([topics].flat(), [], last);
  }

  unsubscribe(topics) {
    return this.#source.change([], [topics].flat());
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
      this.#every(event);
      this.dispatchEvent(event);
    }
    if (notice && notice !== "error") this.dispatchEvent(new CustomEvent(notice, { detail: fieldsOf(data) }));
    if (notice === "end") this.close();
  }

  // An error of the function is reported as that of a listener is. It is no error of the stream.
  #every(event) {
    try {
      this.#options.every?.(event);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
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
