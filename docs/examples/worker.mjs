#!/usr/bin/env node
// A worker program for acode: Node.js 18 or later, without any package.
//
//     acode task submit --type custom --action sum --params '{"numbers": [1, 2, 3]}' --program 'node /path/to/worker.mjs'
//
// It is started once for each worker and does one task after another. docs/protocol.md, section 'Worker programs', says
// what passes over its standard input and output. Put functions of your own into `actions`.

import { mkdirSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

// Standard output belongs to the protocol. What anybody prints goes to standard error, and so to the task's output.
console.log = console.error;

// Written at once and whole: standard output is a pipe that the worker reads, and may be full for a moment.
function say(message) {
  let rest = Buffer.from(JSON.stringify(message) + '\n');
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

class Task {
  constructor(message) {
    Object.assign(this, message);
    this.stopping = new AbortController();
  }
  // Handed to whatever takes an AbortSignal.
  get signal() {
    return this.stopping.signal;
  }
  progress(percent, message = '') {
    say({ type: 'progress', id: this.id, percent, message });
  }
  log(text, stream = 'stdout') {
    say({ type: 'log', id: this.id, text: text + '\n', stream });
  }
  // To be called now and then by what does not wait: ends a task that is to end.
  check() {
    this.signal.throwIfAborted();
  }
}

const actions = {
  // Adds numbers.
  async sum(task) {
    let total = 0;
    const { numbers } = task.payload;
    for (const [index, number] of numbers.entries()) {
      task.check();
      total += number;
      task.progress((100 * (index + 1)) / numbers.length, `${index + 1} of ${numbers.length}`);
    }
    task.log(`added ${numbers.length} numbers`);
    return { sum: total, pid: process.pid };
  },
  // Sleeps, and can be woken.
  async sleep(task) {
    await pause(task.payload.seconds * 1000, null, { signal: task.signal });
    return null;
  },
  // Writes a file into the task's private directory, and says where that was.
  async note(task) {
    const path = join(task.scratch, 'note.txt');
    mkdirSync(task.scratch, { recursive: true });
    writeFileSync(path, task.payload.text);
    return { path, bytes: statSync(path).size };
  },
};

const running = new Map();

async function run(task) {
  let answer;
  try {
    const action = Object.hasOwn(actions, task.name) ? actions[task.name] : undefined;
    if (!action) {
      throw new Error(`there is no action '${task.name}' here: there are ${Object.keys(actions).join(', ')}`);
    }
    answer = { type: 'result', payload: (await action(task)) ?? null };
  } catch (caught) {
    // Whatever goes wrong in a task is the task's; the program lives on.
    const error = task.signal.aborted ? task.signal.reason : caught;
    answer = { type: 'error', error: `${error.name}: ${error.message}` };
  }
  running.delete(task.id);
  say({ id: task.id, ...answer });
}

function stopAll(why) {
  for (const task of running.values()) task.stopping.abort(new Error(`told to end (${why})`));
}

const lines = createInterface({ input: process.stdin, crlfDelay: Infinity });
lines.on('line', (line) => {
  const message = JSON.parse(line);
  if (message.type === 'task') {
    const task = new Task(message);
    running.set(task.id, task);
    run(task);
  } else if (message.type === 'cancel') {
    running.get(message.id)?.stopping.abort(new Error(`told to end (${message.why})`));
  } else if (message.type === 'shutdown') {
    lines.close();
  }
});
// Nothing is left to do then, and Node.js ends by itself when the running task has.
lines.on('close', () => stopAll('shutdown'));

say({ type: 'ready' });
