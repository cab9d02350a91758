'use strict';
// Runs a vector's program with the Node SDK: `runner.js VECTOR`.

const fs = require('node:fs');
const { Worker } = require('../node');

const worker = new Worker();
const say = (line) => fs.writeSync(1, JSON.stringify(line) + '\n');
const seen = ({ attempt, checkpoint: at }) => ({ attempt, checkpoint: at ? [at.step, at.state] : null });
const until = async (wanted) => { while (!wanted()) await new Promise((done) => setTimeout(done, 5)); };
const name = (error) => (error.name === 'Error' ? 'failed' : error.name.toLowerCase());

async function step(op, task) {
  switch (op.op) {
    case 'ready': return worker.ready();
    case 'on_refresh':
      return void worker.onRefresh.push(async (scope) => { if (op.fails) throw new Error(op.fails); say({ renewed: scope }); });
    case 'save': return task.save(op.step, op.state, { safe: op.safe });
    case 'effect': return task.effect(op.kind, op.key, () => { if (op.fails) throw new Error(op.fails); return op.result; });
    case 'done': return task.done(op.result, op.figures);
    case 'fail': throw new Error('as told');
    case 'drain': return until(() => worker.draining);
    case 'cancel': return until(() => task.cancelled !== undefined);
    case 'put': return void (await worker.kv(op.ns).put(op.key, op.value));
    case 'get': return worker.kv(op.ns).get(op.key);
    default: throw new Error(`no op ${op.op}`);
  }
}

const told = async (op, task) => say({ value: (await step(op, task)) ?? null });

async function main(ops) {
  while (ops.length) {
    const op = ops.shift();
    try {
      if (op.op === 'begin') {
        const body = [];
        do body.push(ops.shift()); while (ops.length && !['done', 'fail'].includes(body.at(-1).op));
        const { op: _, ...options } = op;
        await worker.task(options, async (task) => {
          say({ value: seen(task) });
          for (const one of body) await told(one, task);
        });
      } else if (op.op === 'serve') {
        let input;
        worker.onTask(op.kind, async (task) => {
          input = task.input;
          say({ value: seen(task) });
          for (const one of op.body) await told(one, task);
          process.kill(process.pid, 'SIGTERM');
          return task.result;
        });
        await worker.serve();
        say({ value: input });
      } else {
        await told(op, null);
      }
    } catch (error) {
      say({ error: name(error) });
    }
  }
}

main(JSON.parse(fs.readFileSync(process.argv[2], 'utf8')).program);
