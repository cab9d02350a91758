'use strict';
// A plan-and-execute agent: its first checkpoint is the plan, each later one says which step is done; whoever takes it
// up goes on at the first incomplete step. Each e-mail sent is a line of the file OUTBOX.

const fs = require('node:fs');
const { setTimeout: wait } = require('node:timers/promises');
const { Worker, Drained, Duplicate } = require('..');

const { OUTBOX = 'outbox.txt', PAUSE = '0.1', STEPS = '5' } = process.env;
const worker = new Worker();

function sendEmail(key) {
  fs.appendFileSync(OUTBOX, `${key}\n`);
  return key;
}

async function agent(task) {
  const { steps } = task.input;
  const plan = task.checkpoint?.state ?? Array.from({ length: steps }, (_, n) => ({ whom: `customer ${n + 1}`, done: false }));
  for (let n = plan.findIndex((step) => !step.done); n >= 0; n = plan.findIndex((step) => !step.done)) {
    await task.effect('send_email', `${n + 1}:mail`, sendEmail, { desc: plan[n].whom });
    plan[n].done = true;
    await task.save(n + 1, plan);
    await wait(1000 * Number(PAUSE));
  }
  return { told: plan.length };
}

async function main() {
  worker.onTask('plan', agent);
  const serving = worker.inside ? worker.serve() : undefined;
  try {
    await worker.task({ kind: 'plan', key: 'tell everybody', input: { steps: Number(STEPS) } }, agent);
  } catch (why) {
    if (!(why instanceof Drained || why instanceof Duplicate)) throw why;
    console.log(`not here any more: ${why.message}`);
  }
  await serving;
}

main();
