/** Options of an {@link EventStream}. */
export interface EventStreamOptions {
  /** Sends cookies to another origin too, as the option of `EventSource`. */
  withCredentials?: boolean;
  /** The mode of `fetch`, if `withCredentials` is not set. The default is `same-origin`. */
  credentials?: RequestCredentials;
  /** Headers of the request, or a function that returns them for each attempt. */
  headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
  /** The method. The default is `GET`. Methods that are not idempotent are not repeated after a clean end. */
  method?: string;
  /** The body of the request, or a function that returns it for each attempt. */
  body?: BodyInit | null | (() => BodyInit | null | Promise<BodyInit | null>);
  /** The URL to which a `POST` of `{"topics": […]}` returns `{"ticket": …}`. The stream is requested with `?ticket=…`. */
  ticket?: string | URL;
  /** One stream for all tabs of the origin. A string separates groups of tabs, for example users. */
  shared?: boolean | string | (() => boolean | string);
  /** Keeps the cursor in `sessionStorage`, so that it survives a reload. A string is a part of its name. */
  persist?: boolean | string;
  /** The id after which the stream starts. */
  lastEventId?: string;
  /** Milliseconds without a byte, after which the connection counts as lost. By default learned from heartbeats. */
  silence?: number;
  /** Called with each event, of any type, before its listeners. */
  every?: (event: MessageEvent<string>) => void;
}

/** The state of a stream; `waiting` until another attempt. */
export type EventStreamState = "connecting" | "open" | "waiting" | "closed";

/** Fired when the stream is lost, or cannot be opened. */
export interface StreamErrorEvent extends Event {
  /** The cause, in words. */
  readonly reason: string;
  /** The time of the next attempt, as `Date.now()`; 0 if there is none. */
  readonly retryAt: number;
  /** The status of the response, if there was one. */
  readonly status?: number;
  /** The fields of a problem response (RFC 9457). */
  readonly problem?: Record<string, unknown>;
}

/** The fields of `gap`. */
export interface Gap {
  /** `expired`: the log no longer keeps the events. `reset`: the cursor belongs to another log. */
  readonly reason: "expired" | "reset";
  /** The id after which events are missing. */
  readonly after: string;
  /** The cursor after which the stream continues. */
  readonly resumed: string;
}

/** The fields of `topics`. */
export interface Topics {
  /** The topics of the stream from here on. */
  readonly topics: string[];
  /** Those of them that have ended before. */
  readonly ended: string[];
}

/** The fields of `topic-end`. */
export interface TopicEnd {
  /** The topic that is complete. */
  readonly topic: string;
  /** The reason that the program gave. */
  readonly reason: string;
}

export interface EventStreamEventMap {
  open: Event;
  message: MessageEvent<string>;
  error: StreamErrorEvent;
  statechange: Event;
  gap: CustomEvent<Gap>;
  topics: CustomEvent<Topics>;
  "topic-end": CustomEvent<TopicEnd>;
  end: CustomEvent<Record<string, unknown>>;
  expired: CustomEvent<Record<string, unknown>>;
}

/** An `EventSource` over `fetch`. */
export class EventStream extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;

  constructor(url: string | URL, options?: EventStreamOptions);

  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: 0 | 1 | 2;
  readonly state: EventStreamState;
  /** The cause of the last change to `waiting` or `closed`, in words. */
  readonly reason: string;
  /** The time of the next attempt, as `Date.now()`. */
  readonly retryAt: number;
  /** The id of the last event. */
  readonly lastEventId: string;

  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: MessageEvent<string>) => unknown) | null;
  /** The fields are optional here, so that an `EventStream` can stand for an `EventSource`. */
  onerror: ((event: Event & Partial<StreamErrorEvent>) => unknown) | null;

  /** Opens a closed stream again, after its last event. */
  open(): void;
  /** Closes the stream. */
  close(): void;

  /**
   * Adds topics to the stream. The promise is fulfilled when the stream has them or is opened again with them, and is
   * rejected with an error with `status` and `problem` if the server refuses them.
   * `last` is the number of past events to send first; not with `shared`.
   */
  subscribe(topics: string | string[], options?: { last?: number }): Promise<void>;
  /** Removes topics from the stream, as they were added. */
  unsubscribe(topics: string | string[]): Promise<void>;

  addEventListener<Type extends keyof EventStreamEventMap>(
    type: Type,
    listener: (this: EventStream, event: EventStreamEventMap[Type]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: (this: EventStream, event: MessageEvent<string>) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<Type extends keyof EventStreamEventMap>(
    type: Type,
    listener: (this: EventStream, event: EventStreamEventMap[Type]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: (this: EventStream, event: MessageEvent<string>) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
}
