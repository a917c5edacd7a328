/** What an orchestration has done, read off its history: one call for each bar of the timeline. */

/**
 * @typedef {object} Part a stretch of a bar
 * @property {"waiting" | "running" | "backoff" | "held" | "point"} kind
 * @property {number} from in milliseconds since the epoch
 * @property {number | null} to null while it goes on
 * @property {boolean} [failed]
 */

/**
 * @typedef {object} Call
 * @property {string} key
 * @property {"activity" | "timer" | "child" | "event" | "entity" | "lock" | "control"} kind
 * @property {string} name
 * @property {string} label what people read: the call's summary, where it has one
 * @property {Part[]} parts
 * @property {boolean} failed whether its last answer was a failure
 * @property {boolean} isGivenUp whether it has no answer, and none is waited for any more
 * @property {number} attempts
 * @property {string | null} target the instance or entity that it leads to
 * @property {import("./history.js").HistoryEvent[]} events
 */

const ANSWERS = new Set([
  "TaskCompleted",
  "TaskFailed",
  "SubOrchestrationInstanceCompleted",
  "SubOrchestrationInstanceFailed",
  "EntityOperationCompleted",
  "EntityOperationFailed",
  "TimerFired",
  "EntityLockGranted",
]);

/** What stands last in the history of what has ended. */
const ENDS = new Set(["ExecutionCompleted", "ExecutionTerminated", "ContinueAsNew"]);

/**
 * Read the calls off events.
 * @param {import("./history.js").HistoryEvent[]} events in their order
 * @param {any} [explanation] what the instance waits for, which says more of what is under way
 * @returns {Call[]}
 */
export function callsOf(events, explanation = null) {
  const activities = explanation?.activities ?? [];
  const reader = new Reader(new Map(activities.map((one) => [one.task_id, one.started_at])));
  for (const event of events) reader.take(event);
  for (const one of activities) if (one.state === "retrying") reader.retry(one);
  if (explanation) reader.nameTimers(explanation.timers);
  if (ENDS.has(events[events.length - 1]?.event_type)) reader.giveUp();
  for (const one of explanation?.events ?? []) reader.await(one);
  return reader.calls;
}

class Reader {
  constructor(started) {
    this.started = started;
    /** @type {Call[]} */
    this.calls = [];
    /** @type {Map<number, Call>} */
    this.byTask = new Map();
    /** @type {Call | null} */
    this.suspension = null;
    /** @type {any} */
    this.last = null;
  }

  take(event) {
    const at = Date.parse(event.timestamp);
    if (ANSWERS.has(event.event_type)) this.answer(event, at);
    else if (event.event_type in DECISIONS) DECISIONS[event.event_type](this, event, at);
    else this.control(event, at);
    this.last = event;
  }

  begin(event, kind, name, part, label = name, target = null) {
    const call = {
      key: String(event.seq),
      kind,
      name,
      label,
      parts: [part],
      failed: false,
      isGivenUp: false,
      attempts: 1,
      target,
      events: [event],
    };
    this.calls.push(call);
    const task = event.fields.task_id;
    if (task !== undefined) this.byTask.set(task, call);
    return call;
  }

  /** An attempt of an activity: the first of a call, or another one behind a timer. */
  activity(event, at) {
    const { task_id, name, summary, attempt, first_task_id } = event.fields;
    const began = this.started.get(task_id);
    const parts = began ? [waiting(at, Date.parse(began)), running(Date.parse(began))] : [waiting(at)];
    const call = attempt > 1 ? this.byTask.get(first_task_id) : undefined;
    if (call === undefined) {
      const made = this.begin(event, "activity", name, parts[0], summary || name);
      made.parts = parts;
      made.attempts = attempt || 1;
      // What is before was not read: the next attempts find this one all the same.
      this.byTask.set(first_task_id ?? task_id, made);
      return;
    }
    this.takeBackoff(call, at);
    call.parts.push(...parts);
    call.attempts = attempt;
    call.events.push(event);
    this.byTask.set(task_id, call);
  }

  /** The timer that has just fired was what stood between two attempts, and is no call of its own. */
  takeBackoff(call, at) {
    const ended = call.parts[call.parts.length - 1];
    if (ended.to !== null) call.parts.push({ kind: "backoff", from: ended.to, to: at });
    if (this.last?.event_type !== "TimerFired") return;
    const timer = this.byTask.get(this.last.fields.task_id);
    if (timer?.kind === "timer") this.calls.splice(this.calls.lastIndexOf(timer), 1);
  }

  /** The next attempt of a call is waited for: that is known from elsewhere. */
  retry({ task_id }) {
    const call = this.byTask.get(task_id);
    const ended = call?.parts[call.parts.length - 1];
    if (call && ended && ended.to !== null) call.parts.push({ kind: "backoff", from: ended.to, to: null });
  }

  /**
   * Say what the timers that are open are for; one that stands between two attempts is in their call.
   * The others that have not fired are not waited for any more.
   */
  nameTimers(open) {
    const purposes = new Map(open.map((timer) => [timer.task_id, timer.purpose]));
    this.calls = this.calls.filter((call) => {
      if (call.kind !== "timer" || call.parts[0].to !== null) return true;
      const purpose = purposes.get(call.events[0].fields.task_id);
      if (purpose === undefined) call.isGivenUp = true;
      else if (purpose !== "timer") call.label = `timer (${purpose.replace("_", " ")})`;
      return purpose !== "retry";
    });
  }

  /** What has no answer when all has ended gets none. */
  giveUp() {
    for (const call of this.calls) if (call.parts.some((part) => part.to === null)) call.isGivenUp = true;
  }

  /** An event is waited for: the history has nothing of one that has not come. */
  await({ name, since }) {
    this.calls.push({
      key: `awaited ${name} ${since}`,
      kind: "event",
      name,
      label: `${name} (awaited)`,
      parts: [waiting(Date.parse(since))],
      failed: false,
      isGivenUp: false,
      attempts: 1,
      target: null,
      events: [],
    });
  }

  answer(event, at) {
    const failed = event.event_type.endsWith("Failed");
    let call = this.byTask.get(event.fields.task_id);
    if (call === undefined) {
      const kind = KIND_OF_ANSWER[event.event_type];
      const from = beganAt(event, at) ?? at;
      call = this.begin(event, kind, `#${event.fields.task_id}`, running(from), `#${event.fields.task_id} (began earlier)`);
    } else call.events.push(event);
    const open = call.parts[call.parts.length - 1];
    const began = beganAt(event, at);
    if (call.kind === "activity" && began !== null) {
      if (open.kind === "running") call.parts.pop();
      const wait = call.parts[call.parts.length - 1];
      if (wait?.kind === "waiting") wait.to = Math.max(began, wait.from);
      call.parts.push({ kind: "running", from: began, to: Math.max(at, began), failed });
    } else {
      open.to = at;
      open.failed = failed;
    }
    if (event.event_type === "EntityLockGranted") call.parts.push({ kind: "held", from: at, to: null });
    call.failed = failed;
  }

  release(event, at) {
    for (let index = this.calls.length - 1; index >= 0; index -= 1) {
      const call = this.calls[index];
      if (call.kind !== "lock" || call.parts[call.parts.length - 1].to !== null) continue;
      call.parts[call.parts.length - 1].to = at;
      call.events.push(event);
      return;
    }
  }

  control(event, at) {
    const { event_type: type, fields } = event;
    if (type === "ExecutionResumed" && this.suspension) {
      this.suspension.parts[0].to = at;
      this.suspension.events.push(event);
      this.suspension = null;
      return;
    }
    const reason = fields.reason || fields.status || fields.name;
    const label = reason ? `${type}: ${reason}` : type;
    const isStop = type === "ExecutionSuspended";
    const call = this.begin(event, "control", type, isStop ? waiting(at) : point(at), label);
    if (isStop) this.suspension = call;
    call.failed = fields.status === "Failed";
  }
}

const KIND_OF_ANSWER = /** @type {Object<string, any>} */ ({
  TaskCompleted: "activity",
  TaskFailed: "activity",
  SubOrchestrationInstanceCompleted: "child",
  SubOrchestrationInstanceFailed: "child",
  EntityOperationCompleted: "entity",
  EntityOperationFailed: "entity",
  TimerFired: "timer",
  EntityLockGranted: "lock",
});

const DECISIONS = /** @type {Object<string, (reader: Reader, event: any, at: number) => void>} */ ({
  TaskScheduled: (reader, event, at) => reader.activity(event, at),
  TimerCreated: (reader, event, at) => {
    reader.begin(event, "timer", "timer", waiting(at), "timer");
  },
  SubOrchestrationInstanceCreated: (reader, event, at) => {
    const { name, instance_id: id } = event.fields;
    reader.begin(event, "child", name, running(at), `${name} ${id}`, id);
  },
  EntityOperationCalled: (reader, event, at) => {
    const { entity_id: id, operation } = event.fields;
    reader.begin(event, "entity", `${id}.${operation}`, running(at), `${id} ${operation}`, id);
  },
  EntityOperationSignaled: (reader, event, at) => {
    const { entity_id: id, operation } = event.fields;
    reader.begin(event, "entity", `${id}.${operation}`, point(at), `${id} ${operation} (signal)`, id);
  },
  EntityLockRequested: (reader, event, at) => {
    const name = event.fields.entity_ids.join(", ");
    reader.begin(event, "lock", name, waiting(at), `lock of ${name}`);
  },
  EntityLockReleased: (reader, event, at) => reader.release(event, at),
  EventSent: (reader, event, at) => {
    const { name, instance_id: id } = event.fields;
    reader.begin(event, "event", name, point(at), `${name} sent to ${id}`, id);
  },
  EventRaised: (reader, event, at) => {
    reader.begin(event, "event", event.fields.name, point(at), event.fields.name);
  },
});

/** When the attempt that an event answers began; one that ended at once has no time of its own. */
function beganAt(event, at) {
  if (event.fields.started) return Date.parse(event.fields.started);
  return Number.isInteger(event.fields.shard) ? at : null;
}

function waiting(from, to = /** @type {number | null} */ (null)) {
  return /** @type {Part} */ ({ kind: "waiting", from, to });
}

function running(from) {
  return /** @type {Part} */ ({ kind: "running", from, to: null });
}

function point(at) {
  return /** @type {Part} */ ({ kind: "point", from: at, to: at });
}
